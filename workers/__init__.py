"""Workers: the long-running jobs of a farm, one a file."""
