"""What is wrong with an MLflow server or its address, in words."""

import re
from textwrap import shorten

from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

from pipeline.tracking.labels import without_password


def reason_of(error: Exception) -> str:
    """The first line of an error, shortened."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    if re.search(r"failed with (timeout )?exception", reason):
        return "no server answers there"
    return shorten(without_password(reason), 300)


def why_unusable(uri: str | None, database: str, error: Exception) -> str:
    """Why MLflow can't work with MLFLOW_TRACKING_URI, or with the database here where `uri` is None."""
    reason = reason_of(error)
    if not uri:
        return (
            f"{database} can't be used as MLflow's database: {reason}; move it away, or set "
            "MLFLOW_TRACKING_URI to another"
        )
    if isinstance(error, UnsupportedModelRegistryStoreURIException):
        reason = "MLflow knows no such kind of address"
    elif reason != "no server answers there" and ("://" not in uri or uri.startswith("file:")):
        reason = "MLflow no longer tracks to a folder"
    return (
        f"MLFLOW_TRACKING_URI {without_password(uri)} can't be used: {reason}; set it to the address of a "
        "running MLflow server or to a database such as sqlite:///mlflow.db, or unset it to track to "
        f"{database}"
    )
