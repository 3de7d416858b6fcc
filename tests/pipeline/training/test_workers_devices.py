"""What workers compute on and in, and where the driver has their model."""

from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import ray
import torch

from pipeline.config.params import load_params
from pipeline.config.sections import Resources, Workers
from pipeline.training.digests import check_versions, versions
from pipeline.training.job import plan
from pipeline.training.workers import MISTAKE, WEIGHTS, Assignment, _work, check_gpus, fitted_model
from stochca.compute.checkpoint import save_weights
from stochca.errors import UserError
from stochca.evaluation import predict
from stochca.training.callbacks import Callback, Callbacks
from tests.stochca.pretend import pretended
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit


def workers(number: int, gpu: float) -> Workers:
    each = Resources(cpu=1, gpu=gpu)
    return Workers(num_workers=number, address="local", resources_per_worker=each, max_failures=0)


def test_the_model_of_the_workers_predicts_where_the_driver_does(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = tiny_vit()
    save_weights(tmp_path / WEIGHTS, trained.state_dict())
    assignment = Assignment(tmp_path, tmp_path, plan(load_params(), "finetune", "all", 0), None, {})
    torch.manual_seed(2)
    student = tiny_vit()
    with pretended() as device:
        logits, _ = predict(
            fitted_model(assignment, student), ColouredSquares(3), PREPROCESSING, device=device
        )
    expected, _ = predict(trained, ColouredSquares(3), PREPROCESSING, device=torch.device("cpu"))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-3)


def test_a_worker_with_another_version_of_a_library_is_refused(tmp_path: Path) -> None:
    """run.json says that all computed in those of the driver; a build for another device is the same."""
    here = versions()
    check_versions({**here, "torch": here["torch"].partition("+")[0] + "+cu999"})
    with pytest.raises(UserError, match=r"has no-such-one not at all, but the machine .* has 1\.0; install"):
        check_versions({"no-such-one": "1.0"})
    sent: Queue[Any] = Queue()
    job = plan(load_params(), "finetune", "all", 0)
    assignment = Assignment(Path.cwd(), tmp_path, job, None, {**here, "timm": "0.0.1"})
    _work({"assignment": assignment, "events": sent})
    event, (sentence,) = sent.get_nowait()
    assert event == MISTAKE
    assert f"has timm {here['timm']}, but the machine that started the training has 0.0.1;" in sentence


def test_gpus_set_aside_decide_what_several_workers_compute_on() -> None:
    asked = [workers(1, 0), workers(1, 1), workers(2, 0), workers(2, 0.5)]
    assert [one.on_cpus for one in asked] == [False, False, True, False]
    assert [one.on_gpus for one in asked] == [False, False, False, True]


@pytest.mark.parametrize(("there", "gpu", "said"), [(0, 0, 0), (2, 1, 0), (2, 0, 1)])
def test_gpus_that_are_not_used_are_named(
    there: float, gpu: float, said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Notes(Callback):
        def on_note(self, note: str) -> None:
            notes.append(note)

    notes: list[str] = []
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": there})
    check_gpus(workers(2, gpu), Callbacks([Notes()]))
    assert len(notes) == said
    assert all("Ray has 2 GPUs: workers.resources_per_worker.gpu is 0; with 1 each" in n for n in notes)
    with pytest.raises(UserError, match=r"workers.num_workers 2 need 6 GPUs, but"):
        check_gpus(workers(2, 3), Callbacks([]))
