"""QT-Opt: a critic without an actor."""
