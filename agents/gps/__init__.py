"""Guided policy search: local controllers teach one global network."""
