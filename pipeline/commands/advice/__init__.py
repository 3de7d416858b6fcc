"""What `stochca new` looks at, and the settings that follow."""
