"""Ray, on this machine or on a cluster: connected to, checked, and left again."""

import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pipeline.sections import Resources
from stochca.errors import UserError

Result = TypeVar("Result")
LOCAL = "local"
SECONDS_TO_ANSWER = 10.0
PACKAGES = Path(__file__).parents[2]  # where stochca/ and pipeline/ are
# Workers inherit these.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray Tune's tables: our own lines say more in less
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its files per trial: MLflow has that
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the stage, as everywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}


def set_environment(address: str) -> None:
    """What Ray reads when it is imported: to be called before."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address.startswith("ray://") and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does; Ray's client does not


@contextmanager
def connected(address: str, needs: Resources, key: str) -> Iterator[None]:
    """Ray at `address`, for the length of the block.

    Args:
        address: local (started here, and ended), auto, HOST:PORT or ray://HOST:PORT.
        needs: what has to fit on one machine.
        key: the section of params.yaml that the address and the resources come from.

    Raises:
        UserError: nothing answers at the address, or no machine has the resources.
    """
    set_environment(address)
    _check_answers(address, key)
    import ray
    from ray.exceptions import AuthenticationError

    warnings.filterwarnings("ignore", module="ray")  # the sentences below say it in words
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == LOCAL:
            with _ignored_by_children(signal.SIGTERM):
                ray.init(address=LOCAL, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, runtime_env=_code(), **quiet)
    except AuthenticationError:
        raise UserError(
            f"{key}.address {address}: the cluster asks for a token; set RAY_AUTH_MODE=token, and see "
            "`ray get-auth-token`"
        ) from None
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        if address == LOCAL:
            raise UserError(f"Ray can't be started on this machine: {_first_line(error)}") from None
        raise UserError(_unanswered(address, key, _first_line(error))) from None
    try:
        _check_resources(needs, key)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _ignored_by_children(number: int) -> Iterator[None]:
    """Keep a signal from the processes that are started in the block, which inherit that it is held back.

    A signal to the whole process group then ends Ray through this process, in order; Ray itself does so
    with Ctrl-C. Without it Ray's processes go first, and take this one with them before it has cleaned up.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _has_token() -> bool:
    """Whether this user has a token that Ray's clusters may ask for."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (Path.home() / ".ray" / "auth_token").exists()


def _code() -> dict[str, Any]:
    """The project's packages, for machines that don't have them."""
    return {
        "py_modules": [str(PACKAGES / "stochca"), str(PACKAGES / "pipeline")],
        "env_vars": {name: os.environ[name] for name in QUIET},
    }


def _check_answers(address: str, key: str) -> None:
    """Raise `UserError` unless Ray answers at the address; Ray itself would wait for minutes."""
    if address == LOCAL:
        return
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.services import canonicalize_bootstrap_address_or_die

    found = address.removeprefix("ray://")
    try:
        if address == "auto":
            found = canonicalize_bootstrap_address_or_die("auto")
        host, _, port = found.rpartition(":")
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
        with init_grpc_channel(found) as channel:
            grpc.channel_ready_future(channel).result(timeout=SECONDS_TO_ANSWER)
    except (TimeoutError, grpc.FutureTimeoutError):
        raise UserError(_unanswered(address, key, "no answer in time")) from None
    except (OSError, ValueError) as error:
        raise UserError(_unanswered(address, key, _first_line(error))) from None


def _unanswered(address: str, key: str, reason: str) -> str:
    return (
        f"{key}.address {address}: no Ray cluster answers there ({reason}); start one with "
        f"`ray start --head`, or set {key}.address: local"
    )


def _check_resources(needs: Resources, key: str) -> None:
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(m.get("CPU", 0) >= needs.cpu and m.get("GPU", 0) >= needs.gpu for m in machines):
        largest = max(machines, key=lambda m: (m.get("GPU", 0), m.get("CPU", 0)))
        raise UserError(
            f"{key}.resources asks for cpu {needs.cpu:g} and gpu {needs.gpu:g} on one machine; the largest "
            f"has cpu {largest.get('CPU', 0):g} and gpu {largest.get('GPU', 0):g}"
        )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
