"""The DVC stages: one thin file per stage around the library `stochca`."""
