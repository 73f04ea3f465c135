"""Quality of a fusion: the metrics of the published tables, stricter reference metrics, and metrics of video."""
