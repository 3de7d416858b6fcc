"""Which weights are kept."""
