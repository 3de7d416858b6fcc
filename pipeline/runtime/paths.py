"""Where everything lies, seen from the project's folder. Each folder is named here and in dvc.yaml alone."""

from pathlib import Path

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
RUNS = WORK / "runs"  # a folder for each run that goes on, or of which MLflow lacks something
UNSYNCED = WORK / "unsynced"  # of the version before: what MLflow lacks
SEARCHES = WORK / "tune"
UNPACKED = WORK / "unpacked"
DOWNLOADED = WORK / "downloaded"

OUTPUTS = (BACKBONE, PREPARED, PRETUNED, MODELS, RESULTS, METRICS, REPORTS, WORK)

DATABASE = Path("mlflow.db")
ARTIFACTS = Path("mlruns")
