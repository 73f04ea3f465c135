"""Measurements of `streamfuse bench`: the speed of an engine on this machine and the share of the hardware's peak."""
