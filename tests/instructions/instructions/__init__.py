"""Counts the instructions of requests; see ../README.md."""
