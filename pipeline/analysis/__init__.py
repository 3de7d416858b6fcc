"""What the stage `analyse` is made of."""
