"""What importing costs; each in a fresh interpreter."""

import json
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
# What entry points may wait for before they know what they were told; each list in one process, in order.
WAITS_FOR: list[list[tuple[str, set[str]]]] = [
    [
        ("pipeline.cli", set()),
        ("pipeline.train", set()),
        ("flows.serve", set()),
        ("flows.train", {"prefect"}),
    ],
    [
        ("stochca.training.fit", {"torch", "timm"}),
        ("pipeline.backbone", {"torch", "timm"}),
        ("pipeline.commands.predict", {"torch", "timm"}),
        ("pipeline.tune", {"torch", "timm", "datasets", "pandas", "pyarrow"}),
    ],
    [
        ("pipeline.prepare", {"datasets", "pandas", "pyarrow"}),
        ("pipeline.compare", {"datasets", "pandas", "pyarrow", "mlflow", "scipy", "sklearn"}),
    ],
]


@pytest.mark.parametrize(
    "entries", [WAITS_FOR[0], *(pytest.param(entries, marks=pytest.mark.slow) for entries in WAITS_FOR[1:])]
)
def test_entry_points_wait_for_no_more_than_they_need(entries: list[tuple[str, set[str]]]) -> None:
    names = [name for name, _ in entries]
    script = f"import sys, importlib\nfor name in {names}: importlib.import_module(name); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for (name, may), line in zip(entries, done.stdout.splitlines(), strict=True):
        loaded = set(line.split())
        assert loaded & HEAVY <= may, name
        if name.startswith("stochca"):
            assert not loaded & {"pydantic", "pipeline"}


DEFINED = (
    "import torch; torch.library.define('torchvision::nms', '(Tensor a, Tensor b, float c) -> Tensor'); "
)


FRESH = (
    "import stochca, timm",
    f"{DEFINED}import stochca, timm",
)
# Where torch is there already, which takes longest: each in a fork of one process.
FORKED = (
    "import stochca; stochca.StochCA",
    "import torch, stochca, timm",
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
    # Nothing watches imports once torchvision is there.
    "import sys; before = list(sys.meta_path); import stochca, timm; assert sys.meta_path == before",
    "import sys; before = list(sys.meta_path); import stochca, torchvision; assert sys.meta_path == before; "
    "import timm",
    # Leaving hides no other finder: Python goes through them just then; PathFinder, which finds torchvision,
    # comes next.
    "import sys, stochca; finders = sys.meta_path; own = finders.pop(0); "
    "place = [getattr(each, '__name__', '') for each in finders].index('PathFinder'); "
    "finders.insert(place, own); import timm",
)
FORK = """
import json, os, sys, torch._dynamo
assert not {"torchvision", "timm", "stochca"} & set(sys.modules)
for code in json.load(sys.stdin):
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    exec(code, {})
    print("timm.models.vision_transformer" in sys.modules, flush=True)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", FRESH)
def test_timm_imports_whatever_torchvision_was_built_for(code: str) -> None:
    assert "timm.models.vision_transformer" in modules_after(code)


@pytest.mark.slow
def test_timm_imports_whatever_was_imported_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], input=json.dumps(FORKED), capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True"] * len(FORKED), done.stderr


def test_unknown_attributes_are_named() -> None:
    import stochca

    with pytest.raises(AttributeError, match="no attribute 'StochCa'"):
        stochca.StochCa  # noqa: B018
