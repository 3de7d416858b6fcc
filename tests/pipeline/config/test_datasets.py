import os
import shutil
import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from pipeline.config.datasets import DATASETS, Facts, import_built_in, register, registered
from tests.imports import ROOT
from tests.stochca.test_import import modules_after

import_built_in()
NUMBERS_OF_PAPERS = "pipeline/report/published.py"  # is about benchmarks by their names, and runs none


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_that_params_allow_can_be_loaded(name: str) -> None:
    load = import_module(DATASETS[name].module).load
    assert list(signature(load).parameters)[:2] == ["dataset", "sides"]


def test_a_dataset_is_named_in_its_own_file_alone() -> None:
    for name in ("pacs", "stanford_cars", "fgvc_aircraft", "terra_incognita"):
        files = [
            path for folder in ("pipeline", "flows", "stochca") for path in (ROOT / folder).rglob("*.py")
        ]
        naming = {str(path.relative_to(ROOT)) for path in files if name in path.read_text()}
        assert naming - {NUMBERS_OF_PAPERS} == {f"pipeline/datasets/{name}.py"}


def test_a_new_file_is_a_new_dataset(tmp_path: Path) -> None:
    for package in ("pipeline", "stochca"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    own = (ROOT / "pipeline/datasets/pacs.py").read_text().replace('"pacs"', '"sketches"')
    (tmp_path / "pipeline/datasets/sketches.py").write_text(own)
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("name: openmoji", "name: sketches").replace("domains: [color]", "domains: [tile]")
    (tmp_path / "params.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.prepare"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "allowed here are art_painting, cartoon, photo, sketch" in done.stderr


def test_reading_params_imports_no_library_that_images_need() -> None:
    loaded = modules_after("from pipeline.config.params import load_params; load_params()")
    assert "pipeline.datasets.openmoji" in loaded
    assert not loaded & {"numpy", "PIL", "torch", "torchvision", "scipy", "datasets", "pyarrow", "resvg_py"}


def test_a_name_belongs_to_one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.config.datasets.DATASETS", dict(DATASETS))
    register("mine", "extensions.mine")
    register("mine", "extensions.mine")
    registered("mine").check("mine", "anything")  # an extension reads dataset.source as it likes
    for name in ("mine", "pacs"):
        with pytest.raises(ValueError, match=f"the dataset '{name}' is taken by "):
            register(name, "extensions.other")
    with pytest.raises(ValueError, match=r"must be one of .*pacs.*, found 'photos'"):
        registered("photos")


def test_what_a_benchmark_holds_is_read_from_its_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.config.datasets.DATASETS", dict(DATASETS))
    split = Facts("Birds", "https://birds", 2, {"train": 3, "test": 1}, "free", "Bird, 2020.")
    register("birds", "extensions.birds", facts=split)
    assert registered("birds").images == {"train": 3, "test": 1}
    assert registered("birds").domains is None
    by_domain = Facts("Fish", "https://fish", 2, {"sea": 3, "lake": 1}, "free", "Fish, 2020.")
    register("fish", "extensions.fish", facts=by_domain, sources=("big", "small"))
    assert registered("fish").domains == ("sea", "lake")
    registered("fish").check("fish", "big")
    for name, source in (("birds", "big"), ("fish", "tiny")):
        with pytest.raises(ValueError, match=source):
            registered(name).check(name, source)
