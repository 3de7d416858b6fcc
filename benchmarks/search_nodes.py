"""A search on two nodes against the same search on one of them: how much sooner it is done.

python -m benchmarks.search_nodes [--trials 8] [--sleep SECONDS]

The nodes are two Ray nodes of one CPU each on this machine. A machine with fewer free cores than that
can't train faster on two; there, --sleep makes a trial wait before it trains, which takes about a second, so
that what remains is what the search itself costs: starting trials, passing on reports, tracking.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from benchmarks.measuring import alone, options, seconds_of
from pipeline.search.space import Values
from pipeline.search.task import Task, plan
from pipeline.tune import search
from stochca.config.training import Training
from tests.pipeline.search.small_project import write_project

GOAL = 0.6


def sleeping(task: Task, seconds: float) -> Task:
    """A task whose trials first wait so long."""

    class Sleeping(Task):
        def settings(self, values: Values) -> Training:
            time.sleep(seconds)
            return super().settings(values)

    return Sleeping(**vars(task))


def measure(nodes: int, trials: int, sleep: float | None) -> float:
    """Seconds that a search takes on so many nodes."""
    cluster = Cluster()
    folder = Path(tempfile.mkdtemp(prefix="search-nodes-"))
    before = Path.cwd()
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=200 << 20)
        # A single rung, so that nothing is stopped and both searches do the same work.
        settings = {"trials": trials, "seeds": [0], "grace": 1, "address": cluster.address}
        params = write_project(folder / "project", settings)
        os.chdir(folder / "project")
        task = plan(params)
        return seconds_of(lambda: search(task if sleep is None else sleeping(task, sleep), params))
    finally:
        os.chdir(before)
        cluster.shutdown()
        shutil.rmtree(folder)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--sleep", type=float, help="seconds that a trial sleeps before it trains")
    arguments = parser.parse_args()
    # A process for each, because MLflow and Ray keep to the first database and cluster that they see.
    one, two = (alone(measure, nodes, arguments.trials, arguments.sleep) for nodes in (1, 2))
    what = "training" if arguments.sleep is None else f"sleeping {arguments.sleep:g} s each"
    print(f"{arguments.trials} trials, {what}: {one:.1f} s on one node, {two:.1f} s on two")
    print(f"ratio {two / one:.2f} (goal: at most {GOAL})")


if __name__ == "__main__":
    main()
