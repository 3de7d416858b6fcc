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
from pipeline.runtime.paths import PRETUNED
from pipeline.tracking.run_folder import MLFLOW, RunFolder
from pipeline.training.inputs import DECODERS
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


def test_it_goes_on_to_the_same_decoders_or_says_why_it_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), "weights.safetensors")
    make_backbone(Backbone(name="test_vit", weights="file:weights.safetensors"), 32, Path("data/backbone"))
    Path("pictures").mkdir()
    for seed in range(2):
        picture(40, 40, seed).save(f"pictures/{seed}.png")

    def run(**settings: Any) -> str:
        training = {"epochs": None, "steps": 1, "batch_size": 2, "evaluations": 1, "workers": 0, **settings}
        own = PARAMS.pretune.model_copy(
            update={"images": "pictures", "training": {**PARAMS.pretune.training, **training}}
        )
        _pretune(PARAMS.model_copy(update={"pretune": own}), Untracked())  # type: ignore[arg-type]
        return capsys.readouterr().out

    first = run()
    decoders = (PRETUNED / DECODERS).read_bytes()
    (PRETUNED / DECODERS).unlink()
    again = run()
    assert "starts over" not in first + again
    assert ("pretune: step 1 of 1" in first, "pretune: step" in again) == (True, False)
    assert (PRETUNED / DECODERS).read_bytes() == decoders
    picture(40, 40, 2).save("pictures/2.png")
    words = "pretune: starts over: since it was interrupted, the images, training.lr changed"
    assert words in run(lr=0.5).splitlines()
