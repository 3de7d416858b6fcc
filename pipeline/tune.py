"""Stage `tune`: searches the probability of cross-attention, on the validation split alone.

python -m pipeline.tune

The search keeps its state in work/tune/ until it is done, because DVC deletes a stage's outputs before
it runs; interrupted and started again, it goes on.
"""

from pipeline.config.params import load_params
from pipeline.config.settings_kept import settings_kept
from pipeline.runtime.boundary import run
from pipeline.search.task import decided_by, plan
from pipeline.training.cluster import set_environment


def main() -> None:
    params = load_params()
    task = plan(params)
    set_environment(params.tune.address)
    # Heavy, and not needed to find a mistake in params.yaml.
    from pipeline.search.run import search

    with settings_kept(params, decided_by, "the search"):
        search(task, params)


if __name__ == "__main__":
    run(main)
