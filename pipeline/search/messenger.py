"""Brings what happens in Ray Tune to the process that started the search, wherever Ray runs Tune itself.

With ``ray://`` that is another machine; so everything goes through a mailbox, always.
"""

from typing import Any

import ray
from ray import tune
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

END = None  # the last message
Message = dict[str, Any]  # as `message_of` makes it


def here() -> NodeAffinitySchedulingStrategy:
    """On the machine that runs Ray Tune: this one, or with ``ray://`` the one that was connected to."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def open_mailbox(name: str) -> Queue:
    return Queue(actor_options={"name": name, "num_cpus": 0, "scheduling_strategy": here()})


class Messenger(tune.Callback):
    """Writes to the mailbox of this name. Holds nothing else, for Ray Tune keeps it over a restart."""

    def __init__(self, mailbox: str) -> None:
        self.mailbox = mailbox

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._send("started", trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any
    ) -> None:
        self._send("reported", trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._send("finished", trial, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._send("failed", trial, trial.last_result, trial.get_error())

    def _send(self, kind: str, trial: Any, result: Any = None, error: Exception | None = None) -> None:
        message = message_of(kind, trial.trial_id, trial.experiment_tag, trial.config, result, error)
        # Waited for, so that nothing is under way when the search ends.
        ray.get(ray.get_actor(self.mailbox).put.remote(message))


def message_of(
    kind: str, trial: str, tag: str, values: dict[str, float], result: Any, error: Exception | None = None
) -> Message:
    """A message about a trial.

    Args:
        kind: started, reported, finished or failed.
        tag: Ray Tune's experiment_tag, such as 3_prob=0.2130.
        result: what the trial reported last; None or empty: nothing yet.
        error: what it failed with.
    """
    lines = str(error).strip().splitlines() if error else []
    return {
        "kind": kind,
        "trial": trial,
        "number": int(tag.split("_")[0]),
        "values": values,
        "result": result or {},
        "problem": lines[-1].strip() if lines else None,
    }
