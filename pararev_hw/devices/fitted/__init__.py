"""Numbers fitted to published measurements."""
