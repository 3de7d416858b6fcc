"""Stage `pretune`: decoders that TOAST starts from, in data/pretuned/; none where pretune.steps is 0.

They learn to predict the next token of the training text, and to undo the layers (Shi et al., arXiv
2305.15542), in the frozen backbone. The paper does so on 200,000 documents of OpenWebText.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from examples.language.paths import CARD, DECODERS, PRETUNED
from examples.language.settings import Settings, load_settings, settings_kept
from examples.language.training.digests import code_of
from pipeline.runtime.boundary import run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, write_json
from pipeline.runtime.paths import RUNS
from pipeline.runtime.startup import importing, leave
from pipeline.tracking.follow import Follower
from pipeline.tracking.labels import flatten, origin
from stochca.errors import UserError


def pretune(settings: Settings, follower: Follower) -> None:
    """Pre-tune, track, and put the decoders in place."""
    with importing():
        import transformers

        from examples.language.training.digests import all_that_decides, run_name
        from examples.language.training.evaluation import pad_token
        from examples.language.training.fitting import BEGUN, CHECKPOINTS, fit
        from examples.language.training.inputs import load_inputs
        from pipeline.training.interrupted import why_anew
        from stochca.language import TOAST

    own = settings.pretune
    inputs = load_inputs(settings.training.precision)
    transformers.set_seed(own.seed)
    toast = TOAST(inputs.model, plain_start=True)
    toast.learn("decoders")
    params = {**inputs.decides, "pretune": own.model_dump(), "training": settings.training.model_dump()}
    decides = all_that_decides(params)
    folder = RUNS / run_name("pretune", decides)
    with (
        exclusive("language-pretune"),
        follower.follows(folder, settings.tracking.experiment, "pretune", origin()) as run,
    ):
        run.add_params(flatten(params))
        if reason := why_anew(folder, decides, mark=BEGUN):
            print(f"pretune: {reason}", flush=True)
        fitted = fit(
            toast,
            inputs.train,
            settings.training,
            lr=own.lr,
            steps=own.steps,
            seed=own.seed,
            precision=inputs.precision,
            device=inputs.device,
            pad=pad_token(inputs.tokenizer),
            folder=folder / CHECKPOINTS,
            log=run.log,
            whole_text=True,
        )
        with replace_folder(PRETUNED) as target:
            toast.save_decoders(target / DECODERS)
            write_json(target / CARD, {**own.model_dump(), **asdict(fitted)})
    before, after = ((fitted.losses[at], fitted.reconstruction[at]) for at in (0, -1))
    print(
        f"pretune: cross-entropy {before[0]:.3f} at first, {after[0]:.3f} at last; reconstruction "
        f"{before[1]:.3f}, {after[1]:.3f}"
    )


def main() -> None:
    settings = load_settings()

    def view(now: Settings) -> Any:
        return now.pretune, now.training

    with settings_kept(settings, view, "the stage pretune", *code_of("pretune")):
        if settings.pretune.steps:
            with Follower() as follower:  # it loads MLflow meanwhile
                pretune(settings, follower)
            return
        with replace_folder(PRETUNED) as target:
            write_json(target / CARD, settings.pretune.model_dump())
            if settings.pretune.decoders is not None:
                take(Path(settings.pretune.decoders), target / DECODERS)
        print(
            "pretune: pretune.steps is 0; "
            + (
                f"the decoders are {settings.pretune.decoders}"
                if settings.pretune.decoders
                else "TOAST starts with decoders that emit nothing"
            )
        )


def take(file: Path, target: Path) -> None:
    """Copy decoders that were pre-tuned elsewhere; that they are this backbone's is checked as they load."""
    if not file.is_file():
        raise UserError(
            f"pretune.decoders is {file}, but there is no such file; give one that TOAST.save_decoders wrote"
        )
    shutil.copy(file, target)


if __name__ == "__main__":
    run(main)
    leave()
