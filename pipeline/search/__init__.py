"""What the stage `tune` is made of: the search for the probability of cross-attention, with Ray Tune."""
