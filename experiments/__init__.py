"""Experiments: one script a table or figure of a paper."""

import armfarm.launchers  # noqa: F401, has Ctrl-C end what still imports
