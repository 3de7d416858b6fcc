"""Which weights are kept: the best on validation, or an average of several steps."""
