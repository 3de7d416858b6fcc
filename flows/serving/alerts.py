"""Runs that end badly: people get a message, and those that died without a word are marked as crashed.

Where messages go is a block in Prefect's UI. Every run of a deployment sends a heartbeat
(`[tool.prefect.flows]` in pyproject.toml says how often); an automation acts on what is missing.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect.blocks.core import Block
from prefect.logging import get_logger
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

NAME = "stochca-alerts"
AUTOMATION = "stochca: runs without a heartbeat have crashed"
SECONDS_WITHOUT_HEARTBEAT = 100  # three heartbeats that did not come
FLOWS = ("pipeline", "search", "retrain")
SIGNS = [f"prefect.flow-run.{sign}" for sign in ("heartbeat", "Completed", "Failed", "Cancelled", "Crashed")]


class Alerts(Block):
    """Where messages about runs that went wrong are sent; nowhere until it has a URL."""

    _block_type_name = "StochCA alerts"
    _block_type_slug = "stochca-alerts"

    url: SecretStr = Field(
        default=SecretStr(""),
        description="Anything that Apprise understands: slack://..., mailto://..., json://...; "
        "empty: no messages. See https://github.com/caronc/apprise/wiki",
    )


def register_block() -> None:
    """Make the block known to the server, empty, unless it is there; what a user filled in stays."""
    Alerts.register_type_and_schema()
    if _load() is None:
        Alerts().save(NAME)


def alert(flow: Any, flow_run: "FlowRun", state: "State[Any]") -> None:
    """Send one message about a run that ended badly; what goes wrong in this is only logged."""
    from prefect.utilities.urls import url_for

    logger = get_logger("flows.serving.alerts")
    try:
        block = _load()
        url = block.url.get_secret_value() if block else ""
        if not url:
            return
        import apprise  # takes its time

        title = f"{flow.name}: run {flow_run.name} {state.type.value.lower()}"
        body = f"{state.message or 'no reason given'}\n{url_for(flow_run) or ''}".strip()
        receiver = apprise.Apprise()
        if not (receiver.add(url) and receiver.notify(title=title, body=body)):
            logger.error("the URL in the block %s took no message; check it in Prefect's UI", NAME)
    except Exception as error:  # a run must not fail once more because of its message
        logger.error("no message was sent: %s", error)


def _load() -> Alerts | None:
    try:
        block = Alerts.load(NAME)
    except ValueError:  # Prefect's answer for a block that is not there
        return None
    return block if isinstance(block, Alerts) else None


def register_automation(seconds: int = SECONDS_WITHOUT_HEARTBEAT) -> None:
    """Make the automation, or bring the one of this name up to date."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    automation = Automation(
        name=AUTOMATION,
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
        existing = Automation.read(name=AUTOMATION)
    except ValueError:  # Prefect's answer for an automation that is not there
        automation.create()
        return
    assert isinstance(existing, Automation)  # not a coroutine, which it is in an event loop
    automation.id = existing.id
    automation.update()
