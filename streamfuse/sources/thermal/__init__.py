"""Thermal cameras and their files: degrees from raw counts, layouts of frames, radiometric images."""
