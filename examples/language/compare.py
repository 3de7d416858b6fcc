"""Stage `compare`: the methods side by side, as a page and as tables, in reports/."""

import json
import shutil
from typing import Any

import pandas as pd

from examples.language.paths import (
    BACKBONE,
    CARD,
    DECODERS,
    HERE,
    MANIFEST,
    PREPARED,
    PRETUNED,
    REPORTS,
    RESULTS,
)
from examples.language.report.page import build_page, headline
from examples.language.report.standings import check_settings, rank, read_outcomes
from examples.language.settings import Settings, load_settings, settings_kept
from pipeline.runtime.boundary import run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, write_text
from pipeline.runtime.paths import CODE, RUNS
from pipeline.tracking.publish import why_it_waits
from pipeline.tracking.run_folder import RunFolder, discard_finished


def main() -> None:
    settings = load_settings()

    def view(now: Settings) -> Any:
        return now.compare

    files = [CODE / HERE / name for name in ("compare.py", "report")]
    with exclusive("language-compare"), settings_kept(settings, view, "the stage compare", *files):
        outcomes = read_outcomes(RESULTS, settings.compare)
        check_settings(outcomes, settings)
        rows = rank(outcomes, settings.compare)
        manifest, backbone = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for folder, name in ((PREPARED, MANIFEST), (BACKBONE, CARD))
        )
        page = build_page(rows, settings, manifest, backbone, (PRETUNED / DECODERS).exists())
        table = pd.DataFrame([row.to_dict() for row in rows])
        with replace_folder(REPORTS) as folder:
            write_text(folder / "index.html", page)
            write_text(folder / "comparison.csv", table.to_csv(index=False))
            write_text(folder / "comparison.json", table.to_json(orient="records", indent=2) + "\n")
        tracked = RunFolder.begin(
            RUNS / "language-compare",
            settings.tracking.experiment,
            "comparison",
            replaces={"group": "comparison", "dataset_fingerprint": manifest["fingerprint"]},
        )
        for row in rows:
            tracked.log(
                {f"log_loss/{row.method}": row.log_loss.mean, f"rouge_l/{row.method}": row.rouge_l.mean}
            )
        for path in REPORTS.iterdir():
            shutil.copy(path, tracked.artifacts)
        tracked.end("FINISHED")
        if reason := why_it_waits(tracked.folder):
            print(f"MLflow was not told of the comparison: {reason}; for that run: stochca sync")
        print(f"{headline(rows)}.\nThe page is {REPORTS / 'index.html'}")
        discard_finished()  # DVC has recorded all that is compared


if __name__ == "__main__":
    run(main)
