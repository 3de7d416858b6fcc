"""Runs whose machine or process is gone without a word: an automation marks them as crashed.

Every run of a deployment sends a heartbeat (`[tool.prefect.flows]` in pyproject.toml says how often).
"""

from datetime import timedelta

NAME = "stochca: runs without a heartbeat have crashed"
SECONDS_WITHOUT_HEARTBEAT = 100  # three heartbeats that did not come
FLOWS = ("pipeline", "search", "retrain")
SIGNS = [f"prefect.flow-run.{sign}" for sign in ("heartbeat", "Completed", "Failed", "Cancelled", "Crashed")]


def register(seconds: int = SECONDS_WITHOUT_HEARTBEAT) -> None:
    """Make the automation, or bring the one of this name up to date."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    automation = Automation(
        name=NAME,
        description="A run that sends neither a heartbeat nor its end is marked as crashed.",
        trigger=EventTrigger(
            after={SIGNS[0]},
            expect=set(SIGNS),
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": ["flow"], "prefect.resource.name": list(FLOWS)}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message=f"no heartbeat for {seconds} seconds: its process or machine is gone",
                force=False,
            )
        ],
    )
    try:
        existing = Automation.read(name=NAME)
    except ValueError:  # Prefect's answer for an automation that is not there
        automation.create()
        return
    assert isinstance(existing, Automation)  # not a coroutine, which it is in an event loop
    automation.id = existing.id
    automation.update()
