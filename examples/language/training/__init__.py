"""One training run: what learns, the Trainer, and what is measured afterwards."""
