"""Replay: the seam between processes."""
