"""Stage `analyse`: looks into the trained model of a method, block by block.

python -m pipeline.analyse METHOD
"""

import sys

from pipeline.analysis.analysis import analyse_model
from pipeline.config.params import load_params
from pipeline.images.prepared import load_prepared
from pipeline.images.protocol import images_for
from pipeline.runtime import boundary
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.paths import BLOCKS, MODELS
from pipeline.training.saved_model import load_trained


def main() -> None:
    """Analyse the run of a method for the first target with the first seed."""
    params = load_params()
    method, protocol = sys.argv[1], params.protocol
    target, seed = protocol.targets[0], protocol.seeds[0]
    tests = images_for(load_prepared(), protocol.name, target, seed).test
    with exclusive(f"analyse-{method}"):
        trained = load_trained(MODELS / f"{method}-{target}-{seed}")
        for line in analyse_model(trained, BLOCKS / method, tests=tests):
            print(line, flush=True)


if __name__ == "__main__":
    boundary.run(main)
