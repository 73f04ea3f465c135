"""Bags: recordings of robots with many topics, in the formats of ROS 1, ROS 2 and MCAP."""
