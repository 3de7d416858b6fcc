"""Stage `compare`: every run side by side, as tables and as a page for people.

python -m pipeline.compare
"""

import logging
from pathlib import Path

from pipeline import boundary
from pipeline.comparison import Row, compare_runs
from pipeline.files import replace_file
from pipeline.params import Params, load_params
from pipeline.prepared import load_prepared
from pipeline.report import build_page
from pipeline.results import check_same_inputs, read_runs
from pipeline.tables import write_comparison, write_plots, write_summary
from pipeline.tracking_errors import reason_of
from pipeline.tracking_groups import log_groups
from pipeline.wording import headline
from stochca.backbones import BackboneCard

REPORTS = Path("reports")
BACKBONE = Path("data/backbone/card.json")
logger = logging.getLogger(__name__)


def main() -> None:
    params = load_params()
    rows, files = compare(params)
    try:
        log_groups(params, rows, files)
    except Exception as error:  # MLflow's own, a database's, that of a store of files: the page is there
        logger.warning(
            "MLflow was not told of the comparison: %s; for that run again: python -m pipeline.compare",
            reason_of(error),
        )


def compare(params: Params) -> tuple[list[Row], list[Path]]:
    """Read the runs that `params` asks for and write `reports/`; gives the rows and the files for people.

    Raises:
        UserError: something that is compared is missing, damaged or made from other inputs; nothing is
            written then.
    """
    runs = read_runs(params.protocol)
    prepared = load_prepared()
    backbone = BackboneCard.from_file(BACKBONE)
    check_same_inputs(params.protocol, runs, prepared.fingerprint, backbone.to_dict())
    rows = compare_runs(params, runs)
    page = build_page(rows, prepared, backbone.to_dict())

    files = write_comparison(REPORTS, rows)
    write_summary(REPORTS / "summary.json", rows)
    write_plots(REPORTS / "plots", rows)
    with replace_file(REPORTS / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    for target in params.protocol.targets:
        print(f"{headline([row for row in rows if row.target == target])}.")
    print(f"The page is {REPORTS / 'index.html'}")
    return rows, [REPORTS / "index.html", *files]


if __name__ == "__main__":
    boundary.run(main)
