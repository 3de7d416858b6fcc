"""Stage `compare`: every run side by side, as tables and as a page for people.

python -m pipeline.compare
"""

import logging
from pathlib import Path

from pipeline.config.params import Params, load_params
from pipeline.images.prepared import load_prepared
from pipeline.report.analysed import read_analysed
from pipeline.report.averages import Average, average_over_targets
from pipeline.report.comparison import Row, compare_runs
from pipeline.report.comparison_file import ComparisonFile
from pipeline.report.page import build_page
from pipeline.report.paper_formats import write_table
from pipeline.report.paper_table import paper_table
from pipeline.report.results import check_same_inputs, read_runs
from pipeline.report.tables import markdown, write_comparison, write_plots, write_summary
from pipeline.report.tracking_groups import log_groups
from pipeline.report.wording import headline, overall_headline
from pipeline.runtime import boundary
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_file
from pipeline.runtime.paths import BACKBONE, REPORTS
from pipeline.tracking.errors import reason_of
from stochca.backbones.card import CARD_FILE, BackboneCard

CARD = BACKBONE / CARD_FILE
logger = logging.getLogger(__name__)


def main() -> None:
    params = load_params()
    with exclusive("compare"):
        rows, averages, files = compare(params)
    try:
        log_groups(params, rows, averages, files)
    except Exception as error:  # MLflow's own, a database's, that of a store of files: the page is there
        logger.warning(
            "MLflow was not told of the comparison: %s; for that run again: python -m pipeline.compare",
            reason_of(error),
        )


def compare(params: Params) -> tuple[list[Row], list[Average], list[Path]]:
    """Read the runs that `params` asks for and write `reports/`.

    Returns:
        The rows, their averages where there are several targets, and the files for people.

    Raises:
        UserError: something that is compared is missing, damaged or made from other inputs; nothing is
            written then.
    """
    runs = read_runs(params.protocol)
    prepared = load_prepared()
    backbone = BackboneCard.from_file(CARD)
    check_same_inputs(params.protocol, runs, prepared.fingerprint, backbone.to_dict())
    rows = compare_runs(params, runs)
    averages = average_over_targets(params, rows)
    results = ComparisonFile.of(params, rows, averages, prepared, backbone)
    table, terms = paper_table(results), results.protocol.terms
    analysed = read_analysed(params.compare.analysed)
    page = build_page(rows, averages, table, results.protocol, prepared, backbone.to_dict(), analysed)

    files = write_comparison(REPORTS, results, markdown(rows, averages, table, terms))
    files += write_table(REPORTS, table)
    write_summary(REPORTS / "summary.json", rows, averages)
    write_plots(REPORTS / "plots", rows)
    with replace_file(REPORTS / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    if averages:
        print(f"{overall_headline(averages, terms)}.")
    for target in params.protocol.targets:
        title = f"{terms.title_of(target)}: " if averages else ""
        print(f"{title}{headline([row for row in rows if row.target == target])}.")
    print(f"The page is {REPORTS / 'index.html'}")
    return rows, averages, [REPORTS / "index.html", *files]


if __name__ == "__main__":
    boundary.run(main)
