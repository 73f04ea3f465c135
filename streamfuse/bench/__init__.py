"""How fast an engine is here, and how fast it could be: what `streamfuse bench` measures."""
