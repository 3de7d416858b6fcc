"""What the flow costs: against `dvc repro` of the same stages, and two slots against one.

    python -m benchmarks.flow            # needs about a minute
    python -m benchmarks.flow --stages 12

A Prefect server is started first and not counted: where flows are used, it runs all the time. The stages only
wait, so that nothing but the flow differs: a first stage, some that can run side by side, and a last one.
"""

import os
import tempfile
from pathlib import Path

from benchmarks.measuring import options, print_head, print_row, seconds_of
from tests.flows.project import Project, prefect_server


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--stages", type=int, default=4, help="how many stages can run side by side")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each of them waits")
    arguments = parser.parse_args()
    middle = {f"train{i}": (arguments.seconds, ["prepare"]) for i in range(arguments.stages)}
    stages = {"prepare": (0.0, []), **middle, "last": (0.0, list(middle))}
    with tempfile.TemporaryDirectory() as folder, prefect_server(Path(folder)) as flow:
        project = Project(Path(folder) / "project", stages)
        command = ("-m", "flows.train", "last", "--force", "--slots")
        dvc = ("-m", "dvc", "repro", "--force", "last")

        def seconds(*command: str, **environment: str) -> float:
            return seconds_of(lambda: project.run(*command, environment=environment))

        seconds(*dvc)  # warm: compiled files, DVC's caches
        plain = seconds(*dvc)
        one = seconds(*command, "1", **flow)
        two = seconds(*command, "2", **flow)
        current = seconds("-m", "dvc", "repro", "last")
        current_flow = seconds("-m", "flows.train", "last", **flow)
    count = len(stages)
    print(f"{count} stages, {arguments.stages} of them side by side, waiting {arguments.seconds:g} s each")
    print_head("", "seconds", "beside it")
    print_row("dvc repro", f"{plain:.1f}", "")
    print_row("flow, one slot", f"{one:.1f}", f"{one - plain:+.1f} s, {(one - plain) / count:.2f} s each")
    print_row("flow, two slots", f"{two:.1f}", f"{one / two:.2f} times as fast as one")
    print_row("nothing changed: dvc", f"{current:.1f}", "")
    print_row("nothing changed: flow", f"{current_flow:.1f}", f"{current_flow - current:+.1f} s")
    print(f"load of this machine meanwhile: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
