"""Configurations: one file a system, every number with its unit and source."""
