"""Ours, with cross-attention to the pretrained model at p = 0.1."""

from functools import partial

from benchmarks.peer_scripts.ours import train
from benchmarks.peer_scripts.task import main
from stochca.config import Method, StochasticCrossAttention

if __name__ == "__main__":
    main(partial(train, method=Method(attention=StochasticCrossAttention(prob=0.1))))
