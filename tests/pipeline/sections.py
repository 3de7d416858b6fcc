"""Sections of params.yaml for tests: as shipped, but for what a test says."""

from typing import Any

import yaml

from pipeline.config.sections import Compare, Dataset
from tests.imports import ROOT

SHIPPED = yaml.safe_load((ROOT / "presets" / "common" / "params.yaml").read_text())


def dataset_section(**settings: Any) -> Dataset:
    """All domains, of any dataset."""
    return Dataset.model_validate({**SHIPPED["dataset"], "domains": None, **settings})


def compare_section(**settings: Any) -> Compare:
    return Compare.model_validate({**SHIPPED["compare"], **settings})
