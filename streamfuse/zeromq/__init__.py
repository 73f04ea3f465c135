"""Frames over ZeroMQ: publisher, subscriber, message and keys."""
