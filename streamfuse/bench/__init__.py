"""Speed of an engine on this machine, beside the peak of the machine: the figures of `streamfuse bench`."""
