"""What the stage `compare` is made of: the comparison, its tables and the page."""
