"""Where frames come from: files, images, cameras, network streams, drawn scenes; `streamfuse.sources.uri` opens them."""
