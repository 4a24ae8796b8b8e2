"""Launchers: absl mains that compose the workers."""
