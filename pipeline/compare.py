"""Stage `compare`: every run side by side, as tables and as a page for people.

python -m pipeline.compare
"""

import logging
from pathlib import Path
from typing import Any

from pipeline.config.params import Params, load_params, settings_kept
from pipeline.report.benchmark_table import write_table
from pipeline.report.comparison import Standing, average_over_targets, compare_runs
from pipeline.report.comparison_json import comparison_of
from pipeline.report.outputs import (
    markdown,
    write_comparison,
    write_mlflow_runs,
    write_plots,
    write_summary,
)
from pipeline.report.page import build_page, read_analysed
from pipeline.report.results import read_inputs
from pipeline.report.sentences import headline
from pipeline.report.table_contents import table_of
from pipeline.runtime import boundary
from pipeline.runtime.code import code_of
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import REPORTS
from pipeline.tracking.publish import why_it_waits
from pipeline.tracking.run_folder import discard_finished

logger = logging.getLogger(__name__)


def main() -> None:
    params = load_params()

    def view(settings: Params) -> Any:
        return settings.protocol, settings.compare

    with exclusive("compare"), settings_kept(params, view, "the stage compare", *code_of("compare")):
        rows, averages, files = compare(params)
        if reason := why_it_waits(*write_mlflow_runs(params, rows, averages, files)):
            logger.warning("MLflow was not told of the comparison: %s; for that run: stochca sync", reason)
        discard_finished()  # DVC has recorded all that is compared


def compare(params: Params) -> tuple[list[Standing], list[Standing], list[Path]]:
    """Read the runs that `params` asks for and write `reports/`.

    Returns:
        The rows, their averages where there are several targets, and the files for people.

    Raises:
        UserError: something that is compared is missing, damaged or made from other inputs; nothing is
            written then.
    """
    runs, prepared, backbone = read_inputs(params)
    rows = compare_runs(params, runs)
    averages = average_over_targets(params, runs)
    results = comparison_of(params, rows, averages, prepared, backbone)
    table, terms = table_of(results), results.protocol.terms
    analysed = read_analysed(params.compare.analysed)
    page = build_page(rows, averages, table, results.protocol, prepared, backbone.to_dict(), analysed)

    files = write_comparison(REPORTS, results, markdown(rows, averages, table, terms))
    files += write_table(REPORTS, table)
    write_summary(REPORTS / "summary.json", rows, averages)
    write_plots(REPORTS / "plots", rows)
    write_text(REPORTS / "index.html", page)
    if averages:
        print(f"{headline(averages, terms)}.")
    for target in params.protocol.targets:
        title = f"{terms.title_of(target)}: " if averages else ""
        print(f"{title}{headline([row for row in rows if row.target == target], terms)}.")
    print(f"The page is {REPORTS / 'index.html'}")
    return rows, averages, [REPORTS / "index.html", *files]


if __name__ == "__main__":
    boundary.run(main)
