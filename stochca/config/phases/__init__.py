"""What happens before the training loop."""
