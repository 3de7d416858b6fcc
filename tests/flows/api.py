"""What a Prefect server knows, asked through its API."""

from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort


def newest_run() -> FlowRun:
    """The flow run that began last."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=20)
    return next(run for run in runs if run.start_time is not None)


def read_run(run_id: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id)


def start_run(deployment: str, parameters: dict[str, Any] | None = None) -> UUID:
    """Ask for a run of a deployment, as `prefect deployment run` does."""
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        return client.create_flow_run_from_deployment(found.id, parameters=parameters or {}).id


def set_state(run_id: UUID, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, state)


def task_states(run_id: UUID) -> dict[str, str]:
    """The names of the states of a flow run's tasks."""
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    return {task.name: str(task.state_name) for task in tasks}


def artifacts(run_id: UUID) -> dict[str, str]:
    """The artifacts of a flow run by their keys."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
    return {str(artifact.key): str(artifact.data) for artifact in found}


def state_name(run_id: UUID) -> str:
    return str(read_run(run_id).state_name)


def scheduled_times(flow: str) -> list[datetime]:
    """When the server will start a flow by itself, the next time first."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
            ),
        )
    return sorted(run.expected_start_time for run in runs if run.expected_start_time is not None)


def automations(name: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return list(client.read_automations_by_name(name))
