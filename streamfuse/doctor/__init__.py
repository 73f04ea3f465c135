"""The checks of `streamfuse doctor`: does the program work on this machine, and how well."""
