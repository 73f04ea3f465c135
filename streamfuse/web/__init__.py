"""The live view in a browser, and what monitoring asks for."""
