"""Models by their address: a folder, or models:/NAME@ALIAS and models:/NAME/VERSION in MLflow's registry."""

from pathlib import Path

from pipeline.training.saved_model import TrainedModel, load_trained


def open_model(model: Path) -> tuple[TrainedModel, Path]:
    """A trained model, and the path that what is made from it is named after.

    Raises:
        UserError: there is no such folder or no such model in the registry, or it is damaged.
    """
    if not str(model).startswith("models:"):
        return load_trained(model), model
    # MLflow takes its time to import, and a folder does not need it.
    from pipeline.registry.versions import find_version, load_version

    version = find_version(str(model))
    return load_version(version), Path(f"{version.name}-{version.version}")
