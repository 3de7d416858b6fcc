"""What a run computes on: devices, number formats, compilation, random states, checkpoints, ranks."""
