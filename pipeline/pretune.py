"""Stage `pretune`: decoders that TOAST starts from, in `data/pretuned/`.

Checkpoints live in work/, as those of training do. The stage runs where a stage waits for it:
protocol.toast_after.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import Params, load_params, settings_kept
from pipeline.runtime import boundary
from pipeline.runtime.code import code_of
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.paths import BACKBONE, PREPARED, PRETUNED, RUNS
from pipeline.tracking.follow import Follower
from pipeline.tracking.labels import flatten, origin
from pipeline.training.digests import code_sha256, digest_of, versions
from pipeline.training.interrupted import why_anew
from stochca.config.training import deciding_settings
from stochca.training.callbacks import Callback, StepEvent

if TYPE_CHECKING:
    from stochca.config.timetable import Timetable
    from stochca.data.images import Images

LOG = "log.jsonl"


class Progress(Callback):
    """A line where a training would be evaluated."""

    def __init__(self, timetable: "Timetable") -> None:
        self.timetable = timetable

    def on_step(self, event: StepEvent) -> None:
        if event.step in self.timetable.evaluations:
            print(
                f"pretune: step {event.step} of {event.steps}, reconstruction loss {event.loss:.4f}",
                flush=True,
            )


def pretune_decoders(params: Params) -> None:
    """Pre-tune, track, and put the decoders in place."""
    with Follower() as follower:  # it loads MLflow meanwhile
        _pretune(params, follower)


def _pretune(params: Params, follower: Follower) -> None:
    from pipeline.runtime.files import replace_folder, sha256, write_json
    from pipeline.training.inputs import DECODERS, DECODERS_CARD
    from stochca.backbones.card import BackboneCard
    from stochca.backbones.loading import load_backbone
    from stochca.compute.checkpoint import PREVIOUS, save_weights
    from stochca.compute.devices import default_device
    from stochca.compute.precision import resolve_precision
    from stochca.data.preprocessing import Preprocessing
    from stochca.training.callbacks import JsonLines
    from stochca.training.pretuning import pretune

    card = BackboneCard.from_file(BACKBONE / "card.json")
    backbone = load_backbone(BACKBONE, num_classes=0)
    settings = params.training_with(params.pretune.training)
    images, fingerprint = find_images(params, card.resize or card.image_size)
    timetable = settings.timetable(len(images))
    device = default_device()
    decides = {
        "extensions": params.extensions,
        "training": deciding_settings(settings, timetable),
        "seed": params.pretune.seed,
        "backbone": card.to_dict(),
        "dataset": fingerprint,
        "precision": resolve_precision(settings.precision, device),
        "device": device.type,
        "code": code_sha256("pretune"),
        "versions": versions(),
    }
    folder = RUNS / f"pretune-{digest_of(decides)}"
    tags = {
        **origin(),
        "backbone_sha256": card.weights_sha256,
        "images": params.pretune.images,
        "images_fingerprint": fingerprint,
    }
    with (
        exclusive("pretune"),
        follower.follows(folder, params.tracking.experiment, "pretune", tags) as run,
    ):
        described_settings = {**dataclasses.asdict(settings), "steps": timetable.steps}
        run.add_params({"backbone": card.architecture, **flatten(described_settings, "training.")})
        if reason := why_anew(folder, decides):
            print(f"pretune: {reason}", flush=True)
        pretuned = pretune(
            backbone,
            images,
            settings=settings,
            preprocessing=Preprocessing.of(card),
            seed=params.pretune.seed,
            work_folder=folder,
            callbacks=[JsonLines(folder / LOG), Progress(timetable)],
            device=device,
        )
        run.log({"reconstruction_loss": pretuned.loss, "reconstruction_loss_before": pretuned.loss_before})
        with replace_folder(PRETUNED) as target:
            save_weights(target / DECODERS, pretuned.decoders.state_dict())
            described: dict[str, Any] = {
                "decoders_sha256": sha256(target / DECODERS),
                "backbone_sha256": card.weights_sha256,
                "architecture": card.architecture,
                "images": params.pretune.images,
                "images_fingerprint": fingerprint,
                "number_of_images": len(images),
                "steps": timetable.steps,
                "loss": pretuned.loss,
                "loss_before": pretuned.loss_before,
                "mlflow_run_id": run.run_id,
            }
            write_json(target / DECODERS_CARD, described)
            shutil.copytree(target, run.artifacts / "pretuned", dirs_exist_ok=True)
        (folder / PREVIOUS).unlink(missing_ok=True)  # the last one does, should DVC ask again
    print(
        f"pretune: {PRETUNED / DECODERS}: reconstruction loss {pretuned.loss_before:.4f} before, "
        f"{pretuned.loss:.4f} after"
    )


def find_images(params: Params, short_side: int) -> tuple["Images", str]:
    """The images to pre-tune on, and a fingerprint of them.

    Raises:
        UserError: there are none.
    """
    from pipeline.images.image_files import ImageFiles
    from pipeline.images.prepared import load_prepared

    if Path(params.pretune.images) == PREPARED:
        prepared = load_prepared()
        return prepared.images("train"), prepared.fingerprint
    files = ImageFiles(
        Path(params.pretune.images), short_side=short_side, max_megapixels=params.pretune.max_megapixels
    )
    names = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files.paths]
    return files, hashlib.sha256(json.dumps(names).encode()).hexdigest()


def main() -> None:
    params = load_params()

    def view(settings: Params) -> Any:
        return settings.extensions, settings.training, settings.pretune

    files = (*code_of("pretune"), Path(params.pretune.images))
    with settings_kept(params, view, "the stage pretune", *files):
        pretune_decoders(params)


if __name__ == "__main__":
    boundary.run(main)
