"""Where Ray Tune runs: in an actor on the machine that keeps its state, however Ray was connected to.

With ``ray://`` that is the cluster's head, else this machine. The search asks the actor for the records.
"""

import shutil
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.search.data import LARGEST_SHIPPED, scratch
from pipeline.search.progress import SearchProgress
from pipeline.search.records import Record, Records
from pipeline.search.task import Task
from pipeline.training.cluster import LOCAL
from stochca.errors import UserError

STATE, RECORDS = "ray", "records.json"  # in the search's folder
SECONDS_BETWEEN_LOOKS = 0.2


class SearchActor:
    """A search in Ray Tune, begun anew or gone on with."""

    def __init__(self, task: Task) -> None:
        self.task = task
        # A cluster that ``ray://`` leads to need not have the project's folder.
        self.folder = task.folder if task.folder.exists() else scratch() / task.name
        self.records = Records(self.folder / RECORDS, task.timetable.steps)

    def goes_on(self) -> bool:
        from pipeline.search.tuner import is_restorable

        return is_restorable(self.folder / STATE)

    def run(self, sent: list[ray.ObjectRef]) -> None:
        from pipeline.search.tuner import Recorder, tuner_of

        Recorder.records = self.records
        tuner_of(self.task, self.folder / STATE, sent).fit()

    def known(self) -> list[Record]:
        """The records of the trials, in the order in which they were drawn."""
        return [record for _, record in sorted(self.records.trials.items())]

    def remove(self) -> None:
        """Leave nothing of the search behind."""
        shutil.rmtree(self.folder)


def start_actor(task: Task) -> Any:
    """A handle of the actor, which answers while it runs the trials."""
    options = {"num_cpus": 0, "max_concurrency": 2, "scheduling_strategy": _on(None)}
    return ray.remote(SearchActor).options(**options).remote(task)


def run_trials(actor: Any, task: Task, progress: SearchProgress) -> list[Record]:
    """Run the trials to their end; gives their records.

    Raises:
        UserError: the data is too large to be sent to machines that don't have it.
    """
    sent = _sent(task)
    if ray.get(actor.goes_on.remote()):
        progress.say(
            "continues the search that was interrupted, with the concurrent and max_failures of its beginning"
        )
    progress.tell(ray.get(actor.known.remote()), aloud=False)
    running = actor.run.remote(sent)
    with progress.bar:
        done = False
        while not done:
            done = bool(ray.wait([running], timeout=SECONDS_BETWEEN_LOOKS)[0])
            records: list[Record] = ray.get(actor.known.remote())
            progress.tell(records)
    ray.get(running)
    return records


def _sent(task: Task) -> list[ray.ObjectRef]:
    """The data in Ray's object store, for machines that don't have the project's folder."""
    if task.tune.address == LOCAL:
        return []
    size = task.data.size()
    if size <= LARGEST_SHIPPED:
        return [ray.put(task.data.packed())]
    for node in ray.nodes():
        check = ray.remote(num_cpus=0, scheduling_strategy=_on(node["NodeID"]))(task.data.are_in)
        if node["Alive"] and not ray.get(check.remote(task.data.project)):
            raise UserError(
                f"the images and the backbone take {size / 2**30:.1f} GiB, too much to be sent to "
                f"{node['NodeManagerHostname']}, which does not have {task.data.project}; mount that "
                "folder on all machines of the cluster"
            )
    return []


def _on(node: str | None) -> NodeAffinitySchedulingStrategy:
    """On this node of the cluster; None: the one that was connected to."""
    return NodeAffinitySchedulingStrategy(node or ray.get_runtime_context().get_node_id(), soft=False)
