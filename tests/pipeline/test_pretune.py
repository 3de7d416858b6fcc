from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone, load_params
from pipeline.pretune import _pretune
from pipeline.runtime.files import write_json
from pipeline.tracking.run_folder import MLFLOW, RunFolder
from tests.pipeline.small_model import picture

PARAMS = load_params()


class Untracked:
    """As a run is followed without MLflow; its checkpoint stays, as after an interruption."""

    @contextmanager
    def follows(
        self, folder: Path, experiment: str, name: str, tags: Mapping[str, str]
    ) -> Iterator[RunFolder]:
        run = RunFolder.begin(folder, experiment, name, tags)
        write_json(folder / MLFLOW, {"run_id": "none"})
        yield run


def test_what_changed_since_it_was_interrupted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), "weights.safetensors")
    make_backbone(Backbone(name="test_vit", weights="file:weights.safetensors"), 32, Path("data/backbone"))
    Path("pictures").mkdir()
    for seed in range(2):
        picture(40, 40, seed).save(f"pictures/{seed}.png")

    def said(**settings: Any) -> list[str]:
        training = {"epochs": None, "steps": 1, "batch_size": 2, "evaluations": 1, "workers": 0, **settings}
        own = PARAMS.pretune.model_copy(
            update={"images": "pictures", "training": {**PARAMS.pretune.training, **training}}
        )
        _pretune(PARAMS.model_copy(update={"pretune": own}), Untracked())  # type: ignore[arg-type]
        return capsys.readouterr().out.partition("pretune: starts over: ")[2].splitlines()[:1]

    assert said() == []
    assert said() == []  # goes on
    picture(40, 40, 2).save("pictures/2.png")
    assert said(lr=0.5) == ["since it was interrupted, the images, training.lr changed"]
