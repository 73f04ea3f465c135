"""Fused frames over ZeroMQ: publisher, subscriber, message format and keys."""
