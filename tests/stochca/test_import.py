"""What importing costs; each in a fresh interpreter."""

import subprocess
import sys

import pytest


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reading_params_waits_for_nothing_heavy() -> None:
    loaded = modules_after(
        "import stochca.config, pipeline.config.params; pipeline.config.params.load_params()"
    )
    assert not loaded & {"torch", "timm", "mlflow", "datasets", "pandas", "ray", "prefect", "matplotlib"}


HEAVY = {
    *("torch", "timm", "mlflow", "datasets", "pandas", "pyarrow", "ray", "prefect", "matplotlib", "sklearn"),
    *("dvc", "optuna", "transformers", "scipy", "peft"),
}
# What each entry point may wait for before it has looked at what it was told.
WAITS_FOR: dict[str, set[str]] = {
    "pipeline.cli": set(),
    "pipeline.train": set(),
    "pipeline.backbone": {"torch", "timm"},
    "pipeline.prepare": {"datasets", "pandas", "pyarrow"},
    "pipeline.tune": {"torch", "timm", "datasets", "pandas", "pyarrow"},
    "pipeline.compare": {"datasets", "pandas", "pyarrow", "mlflow", "scipy"},
    "pipeline.commands.predict": {"torch", "timm"},
    "flows.train": {"prefect"},
    "flows.serve": set(),
}


@pytest.mark.parametrize("entry", WAITS_FOR)
def test_entry_points_wait_for_no_more_than_they_need(entry: str) -> None:
    assert modules_after(f"import {entry}") & HEAVY <= WAITS_FOR[entry]


def test_the_library_loads_none_of_the_tools_around_it() -> None:
    loaded = modules_after("import stochca.training.fit")
    assert not loaded & {"mlflow", "dvc", "prefect", "ray", "pandas", "datasets", "pydantic", "pipeline"}


DEFINED = (
    "import torch; torch.library.define('torchvision::nms', '(Tensor a, Tensor b, float c) -> Tensor'); "
)


@pytest.mark.parametrize(
    "code",
    [
        "import stochca, timm",
        "import stochca; stochca.StochCA",
        "import torch, stochca, timm",
        f"{DEFINED}import stochca, timm",
        f"import stochca; {DEFINED}import timm",
        # Imported twice, as notebooks reload it.
        "import sys, stochca; [sys.modules.pop(n) for n in list(sys.modules) if 'stochca' in n]; "
        "import stochca, timm",
        # Half imported before: it failed, or what it needs is there without it.
        "import contextlib\nwith contextlib.suppress(RuntimeError): import torchvision\nimport stochca, timm",
        "import stochca, torch, contextlib\n"
        "with contextlib.suppress(RuntimeError): import torchvision.extension\nimport timm",
        # Its first import is under way when ours comes.
        "import sys, types; sys.modules['torchvision'] = types.ModuleType('torchvision'); import stochca; "
        "del sys.modules['torchvision']; import timm",
    ],
)
def test_timm_imports_whatever_torchvision_was_built_for(code: str) -> None:
    assert "timm.models.vision_transformer" in modules_after(code)


@pytest.mark.parametrize("used", ["import timm", "import torchvision"])
def test_nothing_watches_imports_once_torchvision_is_there(used: str) -> None:
    code = f"import sys; before = list(sys.meta_path); import stochca; {used}; assert sys.meta_path == before"
    assert "stochca" in modules_after(code)


def test_leaving_hides_no_other_finder() -> None:
    """Python goes through the finders just then; PathFinder, which finds torchvision, comes next."""
    code = (
        "import sys, stochca; finders = sys.meta_path; own = finders.pop(0); "
        "place = [getattr(each, '__name__', '') for each in finders].index('PathFinder'); "
        "finders.insert(place, own); import timm"
    )
    assert "timm" in modules_after(code)


def test_unknown_attributes_are_named() -> None:
    import stochca

    with pytest.raises(AttributeError, match="no attribute 'StochCa'"):
        stochca.StochCa  # noqa: B018
