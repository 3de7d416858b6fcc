"""Stage `analyse`: looks into the trained model of a method, block by block.

python -m pipeline.analyse METHOD
"""

import sys
from typing import Any

from pipeline.analysis.analysis import analyse_model
from pipeline.config.params import Params, load_params, settings_kept
from pipeline.images.prepared import load_prepared
from pipeline.images.protocol import images_for
from pipeline.runtime import boundary
from pipeline.runtime.code import code_of
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.paths import BLOCKS, MODELS
from pipeline.training.saved_model import load_trained


def main() -> None:
    """Analyse the run of a method for the first target with the first seed."""
    params = load_params()
    method, protocol = sys.argv[1], params.protocol
    target, seed = protocol.targets[0], protocol.seeds[0]
    tests = images_for(load_prepared(), protocol.name, target, seed).test

    def view(settings: Params) -> Any:
        return settings.protocol.name, settings.protocol.targets[0], settings.protocol.seeds[0]

    name = f"analyse-{method}"
    with exclusive(name), settings_kept(params, view, f"the stage {name}", *code_of("analyse")):
        trained = load_trained(MODELS / f"{method}-{target}-{seed}")
        for line in analyse_model(trained, BLOCKS / method, tests=tests):
            print(line, flush=True)


if __name__ == "__main__":
    boundary.run(main)
