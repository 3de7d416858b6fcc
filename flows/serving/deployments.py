"""prefect.yaml, read and checked: the deployments that `make serve` serves and `prefect deploy` deploys."""

from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import yaml
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ParameterBindError, ParameterTypeError, SignatureMismatchError
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Schedule
from prefect.utilities.callables import get_call_parameters
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stochca.errors import UserError, one_line

FILE = Path("prefect.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Cron(_Part):
    """When a deployment runs by itself."""

    cron: str
    timezone: str = "UTC"
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)


class Limit(_Part):
    """How many runs of a deployment there are at once, and what becomes of more."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"


class Deployment(_Part):
    name: str
    entrypoint: str = Field(pattern=r"^[\w./-]+\.py:\w+$")  # flows/FILE.py:FLOW
    description: str | None = None
    tags: list[str] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: list[Cron] = Field(default_factory=list)
    concurrency_limit: Limit | None = None
    work_pool: dict[str, Any] | None = None  # of `prefect deploy`; what is served runs here


class _File(_Part):
    name: str | None = None
    definitions: Any = None
    build: Any = None
    push: Any = None
    pull: Any = None
    deployments: list[Deployment] = Field(min_length=1)


def read_deployments(path: Path = FILE) -> list[RunnerDeployment]:
    """The deployments that the file describes, as Prefect serves them here, without a work pool.

    Raises:
        UserError: the file is missing or is no YAML, a key is unknown, a value is not allowed, an entrypoint
            is no flow, or a schedule or a parameter is not valid.
    """
    try:
        described = _File.model_validate(yaml.safe_load(path.read_text())).deployments
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's folder") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"{path}: unknown key {where!r}; remove it, or correct its spelling") from None
        raise UserError(f"{path}: {where}: {first['msg']}, found {first['input']!r}") from None
    return [_to_serve(deployment, f"{path}: deployment {deployment.name!r}") for deployment in described]


def _to_serve(deployment: Deployment, where: str) -> RunnerDeployment:
    path, _ = deployment.entrypoint.split(":")
    if not Path(path).is_file():
        raise UserError(f"{where}: entrypoint {deployment.entrypoint}: there is no file {path}")
    try:
        flow: Any = load_flow_from_entrypoint(deployment.entrypoint)
    except Exception as error:  # whatever the file raises when it is imported
        reason = one_line(error)
        raise UserError(f"{where}: entrypoint {deployment.entrypoint}: {reason}") from None
    try:
        flow.validate_parameters(get_call_parameters(flow.fn, (), deployment.parameters))
    except (ParameterBindError, ParameterTypeError, SignatureMismatchError) as error:
        reason = one_line(error)
        raise UserError(f"{where}: parameters don't fit {flow.name}: {reason}") from None
    limit = deployment.concurrency_limit
    return RunnerDeployment.from_entrypoint(
        deployment.entrypoint,
        name=deployment.name,
        description=deployment.description,
        tags=deployment.tags,
        parameters=deployment.parameters,
        schedules=[_schedule(schedule, where) for schedule in deployment.schedules],
        concurrency_limit=ConcurrencyLimitConfig.model_validate(limit.model_dump()) if limit else None,
    )


def _schedule(schedule: Cron, where: str) -> Schedule:
    try:
        ZoneInfo(schedule.timezone)
    except (KeyError, OSError, ValueError):  # unknown, a folder of names, or a path
        raise UserError(
            f"{where}: there is no time zone {schedule.timezone!r}; use a name such as UTC or Europe/Berlin"
        ) from None
    try:
        return Schedule(**schedule.model_dump())
    except ValueError:
        raise UserError(
            f"{where}: {schedule.cron!r} is no cron expression; it needs minute, hour, day of the month, "
            "month and day of the week, such as 0 1 * * *"
        ) from None
