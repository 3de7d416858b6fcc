"""The search for the probability of cross-attention, with Ray Tune; the stage is `pipeline/tune.py`."""
