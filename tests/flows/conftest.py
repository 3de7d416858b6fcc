import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.flows.project import prefect_server


@contextmanager
def prefect_variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables, and Prefect's settings in this process, for a while."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    updates = {PREFECT_API_URL: values["PREFECT_API_URL"], PREFECT_HOME: values["PREFECT_HOME"]}
    with temporary_settings(updates):
        yield
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server, which this process asks too; gives the variables that point at it."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as variables, prefect_variables(variables):
        yield variables
