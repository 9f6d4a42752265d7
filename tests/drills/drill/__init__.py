"""Drills of the write queue, from outside: real processes, and only what the interface promises."""
