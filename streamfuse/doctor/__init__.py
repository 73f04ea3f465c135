"""Whether the program works on this machine, and how well: what `streamfuse doctor` checks."""
