"""params.yaml: its sections, their rules, presets and extensions."""
