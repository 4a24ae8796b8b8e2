"""Experiments: one script a table or figure of a paper."""
