"""timm's transformers: their families, their attention layers, and what passes between two models."""
