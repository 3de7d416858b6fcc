"""Where everything lies, seen from the project's folder. Each folder is named here and in dvc.yaml alone."""

from pathlib import Path

from stochca.errors import UserError

CODE = Path(__file__).parents[2]  # the folder with stochca/, pipeline/ and flows/

PARAMS_FILE = Path("params.yaml")
PRESETS = Path("presets")
EXTENSIONS = Path("extensions")

BACKBONE = Path("data/backbone")
PREPARED = Path("data/prepared")
PRETUNED = Path("data/pretuned")

MODELS = Path("models")
RESULTS = Path("results")
METRICS = Path("metrics")

REPORTS = Path("reports")
BLOCKS = REPORTS / "blocks"  # of the stage analyse
ANALYSES = REPORTS / "analysis"  # of `stochca analyse`
TUNE = REPORTS / "tune"
BEST = TUNE / "best.yaml"

WORK = Path("work")  # may be deleted while nothing runs, but for what of RUNS waits for MLflow
RUNS = WORK / "runs"  # a folder for each run that goes on, or ended last, or of which MLflow lacks something
UNSYNCED = WORK / "unsynced"  # of the version before: what MLflow lacks
SEARCHES = WORK / "tune"
UNPACKED = WORK / "unpacked"
DOWNLOADED = WORK / "downloaded"

OUTPUTS = (BACKBONE, PREPARED, PRETUNED, MODELS, RESULTS, METRICS, REPORTS, WORK)

DATABASE = Path("mlflow.db")
ARTIFACTS = Path("mlruns")
# There DVC copies the project to, for `dvc exp run --temp` and `--queue`.
EXPERIMENTS = (".dvc", "tmp", "exps")


def of_the_project(path: Path) -> Path:
    """`path`, whole; in a copy that DVC makes for an experiment, and then deletes, the original project's."""
    here = Path.cwd()
    for folder in here.parents:
        if folder.parts[-3:] == EXPERIMENTS:
            below = [name for name in here.relative_to(folder).parts if name != "standalone"]
            return folder.parents[2].joinpath(*below[1:], path).resolve()
    return path.resolve()


def whole_address(uri: str) -> str:
    """MLflow's address; a file is that of the project, also in a copy that DVC makes, and then deletes."""
    kind, slashes, path = uri.partition(":///")
    return f"{kind}{slashes}{of_the_project(Path(path))}" if kind == "sqlite" and path else uri


def database_uri() -> str:
    """MLflow's address of the database beside the project.

    Raises:
        UserError: the path has a question mark, where an address ends; the database would be another file.
    """
    path = of_the_project(DATABASE)
    if "?" in str(path):
        raise UserError(
            f"MLflow can't keep its database in {path.parent}, because of the question mark in its name; "
            "rename the folder, or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{path}"
