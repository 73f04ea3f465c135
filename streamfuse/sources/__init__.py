"""Where frames come from: files, images, cameras, network streams, drawn scenes: `uri.open_source`."""
