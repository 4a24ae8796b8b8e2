"""Normalised advantage functions, and its linear variant."""
