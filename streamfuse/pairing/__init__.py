"""Two streams into pairs, by time."""
