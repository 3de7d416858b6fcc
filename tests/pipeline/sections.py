"""Sections of params.yaml for tests: as shipped, but for what a test says."""

from typing import Any

import yaml

from pipeline.config.sections import Compare, Dataset
from tests.imports import ROOT

SHIPPED = yaml.safe_load((ROOT / "presets" / "common" / "params.yaml").read_text())


def dataset_section(**settings: Any) -> Dataset:
    """All domains, of any dataset; 60 % of the images train."""
    here = {"domains": None, "validation": 0.15, "test": 0.25}
    return Dataset.model_validate({**SHIPPED["dataset"], **here, **settings})


def compare_section(**settings: Any) -> Compare:
    return Compare.model_validate({**SHIPPED["compare"], **settings})
