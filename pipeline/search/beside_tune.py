"""Where Ray Tune itself runs: in this process, or behind ``ray://`` on the cluster's head."""

from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def is_client() -> bool:
    """Whether Ray was connected to through ``ray://``: then Ray Tune itself runs on the other side."""
    import ray

    return bool(ray.util.client.ray.is_connected())


def beside_tune(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function on the machine that Ray Tune itself runs on: this one, but for ``ray://``."""
    if not is_client():
        return function(*arguments)
    import ray

    from pipeline.search.messenger import here

    remote = ray.remote(num_cpus=0, scheduling_strategy=here())(function)
    return ray.get(remote.remote(*arguments))
