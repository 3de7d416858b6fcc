"""What happens before the training loop: a head that is fitted, or made of the names of the classes."""
