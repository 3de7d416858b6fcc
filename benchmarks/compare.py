"""How the stage `compare` grows with the number of runs: seconds, and memory at most.

python -m benchmarks.compare [--seeds 2 17 167] [--test-images 500]

The runs of six methods are made up, as the tests make them; each table is made in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.prepare import measured
from tests.pipeline.synthetic_runs import SKILL, write_inputs


def compare_there(folder: Path) -> dict[str, float]:
    from pipeline.compare import compare
    from pipeline.params import load_params

    os.chdir(folder)
    return measured(lambda: compare(load_params()))


def compare_in_process(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.compare", "--folder", str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 17, 167], help="of each of six methods")
    parser.add_argument("--test-images", type=int, default=500)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(compare_there(arguments.folder)))
        return
    print("| runs | seconds | for each | memory | page |")
    print("| --: | --: | --: | --: | --: |")
    for seeds in arguments.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "project")
            write_inputs(folder, seeds=range(seeds), test_images=arguments.test_images)
            found = compare_in_process(folder)
            page = (folder / "reports" / "index.html").stat().st_size
        runs = seeds * len(SKILL)
        print(
            f"| {runs:,} | {found['seconds']:.1f} | {found['seconds'] / runs * 1000:.0f} ms "
            f"| {found['memory']:.0f} MB | {page / 1e6:.1f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
