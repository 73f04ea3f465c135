"""Pairing of two streams by time."""
