"""How long MLflow's HTTP client waits: its own patience, minutes of retries, would hold training up."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
FIRST_REQUEST = {_RETRIES: "2", _TIMEOUT: "8"}  # a server that is not there is found out in half a minute
WHILE_TRAINING = {_RETRIES: "1", _TIMEOUT: "8"}
UPLOADS = {_RETRIES: "1"}  # the time-out stays long: a server answers when it has stored the whole file


@contextmanager
def patience(settings: Mapping[str, str]) -> Iterator[None]:
    """Set MLflow's environment variables for a while, where the user has not set them."""
    added = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)  # another thread may have
