"""The demo scene: a street at night, as an infrared and a visible camera see it, drawn by our own code."""
