"""Pretrained transformers on disk: the card that describes one, and how it is loaded."""
