"""How a flow run ends: the sentence that its final state carries, and the tables beside it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.states import Failed

from pipeline.runtime.paths import TUNE as SEARCH
from stochca.errors import UserError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

Arguments = ParamSpec("Arguments")
COMPARISON = Path("reports/comparison.md")


def mistakes_in_a_sentence(
    flow: "Callable[Arguments, State[Any]]",
) -> "Callable[Arguments, State[Any]]":
    """End the run as Failed with the sentence of a `UserError`, without a traceback."""

    @functools.wraps(flow)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> "State[Any]":
        try:
            return flow(*args, **kwargs)
        except UserError as error:
            get_run_logger().error("%s", error)
            return Failed(message=str(error))

    return wrapped


def publish_comparison() -> None:
    """The comparison's table, as the artifact `comparison`."""
    page = COMPARISON.with_name("index.html").resolve()
    create_markdown_artifact(
        key="comparison",
        markdown=f"{COMPARISON.read_text()}\n\nThe page with all of it: `{page}`\n",
        description="The methods side by side",
    )


def publish_search() -> None:
    """What the search found, as the artifact `search`, and all its trials, as the table `trials`."""
    import pandas

    from pipeline.config.tuned import BEST

    parts = [f"```yaml\n{BEST.read_text().strip()}\n```"]
    parts += [f"Picture: `{picture.resolve()}`" for picture in sorted(SEARCH.glob("*.png"))]
    create_markdown_artifact(
        key="search", markdown="\n\n".join(parts) + "\n", description="What the search found"
    )
    trials = SEARCH / "trials.csv"
    if trials.exists():
        rows: Any = pandas.read_csv(trials).to_dict("records")
        create_table_artifact(key="trials", table=rows, description="The trials of the search")
