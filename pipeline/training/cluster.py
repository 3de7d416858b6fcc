"""Ray, on this machine or on a cluster: connected to, checked, and left again."""

import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.extensions import FOLDER as EXTENSIONS
from pipeline.config.sections import Resources
from pipeline.runtime.boundary import first_line
from stochca.compute.cores import cores_of_process
from stochca.errors import UserError

LOCAL = "local"
SECONDS_TO_ANSWER = 10.0
PACKAGES = Path(__file__).parents[2]  # where stochca/ and pipeline/ are
# Workers inherit these.
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray Tune's tables: our own lines say more in less
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its files per trial: MLflow has that
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # seconds between snapshots; what began since is lost by -9
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the stage, as everywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without a GPU still see those of the machine
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more: a lost worker is replaced anyway
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_DEDUP_LOGS": "0",
}


def _set_environment(address: str) -> None:
    """What Ray reads when it is imported: to be called before."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if address.startswith("ray://") and (token or (Path.home() / ".ray" / "auth_token").exists()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does; Ray's client does not
    if address == LOCAL:
        # Ray's name for it is of systems where it never listens to other machines, but to loopback alone.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@contextmanager
def connected(address: str, *, key: str, cpus: float = 0) -> Iterator[None]:
    """Ray for the length of the block; a private one ends with it, with all that runs on it.

    Args:
        address: local (started here), auto, HOST:PORT or ray://HOST:PORT.
        key: where the address comes from in params.yaml, such as ``tune.address``.
        cpus: a private Ray offers at least so many, however few cores there are; processes then share them.

    Raises:
        UserError: nothing answers at the address.
    """
    _set_environment(address)
    _check_answers(address, key)
    import ray
    from ray.exceptions import AuthenticationError

    warnings.filterwarnings("ignore", module="ray")  # our own sentences say it
    # A short path, because sockets lie in it.
    session = Path(tempfile.mkdtemp(prefix="stochca-ray-")) if address == LOCAL else None
    try:
        options: dict[str, Any] = {}
        if session is not None:
            cores = max(cores_of_process(), math.ceil(cpus))
            options = {"num_cpus": cores, "include_dashboard": False, "_temp_dir": str(session)}
        try:
            with _sigterm_stays_ours():
                options |= _quiet(ship_code=address != LOCAL)
                try:
                    ray.init(address, **options)
                except ConnectionAbortedError:
                    # Two heads on one machine may give their clients the same port, but not twice.
                    ray.init(address, **options)
        except AuthenticationError:
            raise UserError(
                f"{key} {address}: the cluster asks for a token; set RAY_AUTH_MODE=token, and see "
                "`ray get-auth-token`"
            ) from None
        except Exception as error:  # Ray's own, or a plain one where its processes start too slowly
            if address == LOCAL:
                raise UserError(f"Ray can't be started on this machine: {first_line(error)}") from None
            raise UserError(
                f"{key} {address} answers, but not as Ray ({_reason(error)}); check that it is the head of a "
                "cluster of the same version, and try again if it has just been started; where that asks for "
                "a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from None
        yield
    finally:
        ray.shutdown()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """What the error says first, and the last line of the head's own traceback where one follows."""
    *_, last = str(error).strip().splitlines() or [""]
    first = first_line(error)
    return first if last.rstrip(".") == first else f"{first.rstrip(':')}: {last.rstrip('.')}"


def check_one_machine_has(needs: Resources, section: str) -> None:
    """Raise `UserError` unless some machine of the cluster has these resources."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(m.get("CPU", 0) >= needs.cpu and m.get("GPU", 0) >= needs.gpu for m in machines):
        largest = max(machines, key=lambda m: (m.get("GPU", 0), m.get("CPU", 0)))
        raise UserError(
            f"{section} asks for cpu {needs.cpu:g} and gpu {needs.gpu:g} on one machine; the largest "
            f"has cpu {largest.get('CPU', 0):g} and gpu {largest.get('GPU', 0):g}"
        )


def unused_gpus(needs: Resources, section: str) -> str | None:
    """What to say where the cluster has GPUs that these resources leave unused."""
    import ray

    found = ray.cluster_resources().get("GPU", 0)
    if not found or needs.gpu:
        return None
    return f"trains on CPUs, though Ray has {found:g} GPUs: {section}.gpu is 0; with 1 each would have one"


def _quiet(*, ship_code: bool) -> dict[str, Any]:
    """Options of ray.init: no chatter, and workers that find the project's code."""
    paths = [str(PACKAGES), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    variables = {name: os.environ[name] for name in SETTINGS}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment: dict[str, Any] = {"env_vars": variables}
    if ship_code:  # to machines that don't have it
        folders = [PACKAGES / "stochca", PACKAGES / "pipeline", Path(EXTENSIONS).resolve()]
        environment["py_modules"] = [str(folder) for folder in folders if folder.is_dir()]
    return {"logging_level": logging.ERROR, "log_to_driver": False, "runtime_env": environment}


@contextmanager
def _sigterm_stays_ours() -> Iterator[None]:
    """Keep Ray from taking over SIGTERM while it starts.

    Its own handler would end this process past its tracking. And its processes, when the whole process
    group is told to end, must not go first: they inherit that the signal is held back, and end with us.
    """
    handler = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _check_answers(address: str, key: str) -> None:
    """Raise `UserError` unless Ray answers; Ray itself would try for minutes, deaf to signals."""
    if address == LOCAL:
        return
    import grpc
    from ray._private.services import canonicalize_bootstrap_address_or_die  # nothing public finds a cluster

    found = address.removeprefix("ray://")
    try:
        if address == "auto":
            found = canonicalize_bootstrap_address_or_die("auto")
        host, _, port = found.rpartition(":")
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
        if os.environ.get("RAY_USE_TLS", "0") != "1":  # whose certificates are for Ray to read
            with grpc.insecure_channel(found) as channel:
                grpc.channel_ready_future(channel).result(timeout=SECONDS_TO_ANSWER)
    except (OSError, ValueError, OverflowError, grpc.FutureTimeoutError) as error:
        is_late = isinstance(error, TimeoutError | grpc.FutureTimeoutError)
        reason = "no answer in time" if is_late else first_line(error)
        raise UserError(
            f"{key} {address}: no Ray cluster answers there ({reason}); start one with `ray start --head`, "
            f"or set {key}: local"
        ) from None
