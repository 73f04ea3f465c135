"""Calibration of a camera pair: the file, the methods that make one, and the time offset between two streams."""
