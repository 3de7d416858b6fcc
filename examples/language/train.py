"""Stage `train`: one method with one seed, `python -m examples.language.train METHOD SEED`.

Checkpoints live in work/, named after everything that decides the result; MLflow is told meanwhile by the
pipeline's own follower. Model and results are moved into place at the very end.
"""

import argparse
from dataclasses import asdict
from typing import Any

from examples.language.paths import DECODERS, MODELS, OUTCOME, PRETUNED, RESULTS
from examples.language.settings import Settings, digests_of_data, load_settings, settings_kept
from examples.language.training.digests import code_of
from pipeline.runtime.boundary import run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, write_json
from pipeline.runtime.paths import RUNS
from pipeline.runtime.startup import importing, leave
from pipeline.tracking.follow import Follower
from pipeline.tracking.labels import flatten, origin
from stochca.errors import UserError


def train(name: str, seed: int, settings: Settings) -> None:
    """Train, let it answer, track, and put the results in place.

    Raises:
        UserError: `name` is no method, or does not suit the backbone.
    """
    if name not in settings.methods:
        raise UserError(f"params.yaml defines no method {name!r}; defined are {', '.join(settings.methods)}")
    with Follower() as follower:  # it loads MLflow meanwhile
        _train(name, seed, settings, follower)


def _train(name: str, seed: int, settings: Settings, follower: Follower) -> None:
    with importing():
        import time

        import transformers

        from examples.language.training.digests import all_that_decides, run_name
        from examples.language.training.evaluation import choose, evaluate, pad_token
        from examples.language.training.fitting import BEGUN, CHECKPOINTS, fit
        from examples.language.training.inputs import load_inputs
        from examples.language.training.methods import build, save
        from examples.language.training.steering import steering
        from pipeline.training.interrupted import why_anew
        from stochca.compute.devices import device_name, peak_memory_mb
        from stochca.language import TOAST

    method, training = settings.methods[name], settings.training
    inputs = load_inputs(training.precision)
    decoders = PRETUNED / DECODERS if (PRETUNED / DECODERS).exists() else None
    data = digests_of_data(decoders=True)
    steps = method.steps or training.steps
    decides = all_that_decides(
        {
            **inputs.decides,
            **data,
            "method": method.model_dump(),
            "training": training.model_dump(),
            "seed": seed,
        }
    )
    transformers.set_seed(seed)
    module = build(method, inputs.model, decoders)
    folder = RUNS / run_name(f"{name}-{seed}", decides)
    tags = {**origin(), "device": device_name(inputs.device), "precision": inputs.precision}
    with (
        exclusive(f"language-{name}-{seed}"),  # whose outputs one of other settings would write as well
        follower.follows(folder, settings.tracking.experiment, f"{name}-{seed}", tags) as run,
    ):
        params = {"method": name, "seed": seed, **method.model_dump(), "training": training.model_dump()}
        run.add_params(flatten({**params, "steps": steps}))
        if reason := why_anew(folder, decides, mark=BEGUN):
            print(f"{name}-{seed}: {reason}", flush=True)
        fitted = fit(
            module,
            inputs.train,
            training,
            lr=method.lr,
            steps=steps,
            seed=seed,
            precision=inputs.precision,
            device=inputs.device,
            pad=pad_token(inputs.tokenizer),
            folder=folder / CHECKPOINTS,
            log=run.log,
        )
        memory = peak_memory_mb(inputs.device)
        started = time.perf_counter()
        answers = evaluate(
            module,
            inputs.tokenizer,
            choose(inputs.test, settings.compare),
            settings.compare,
            precision=inputs.precision,
            device=inputs.device,
        )
        tokens = sum(answer.tokens for answer in answers)
        numbers = {
            "log_loss": sum(answer.surprise for answer in answers) / tokens,
            "train_seconds": fitted.seconds,
            "answer_seconds": time.perf_counter() - started,
            "peak_memory_mb": memory,
            "trainable_parameters": fitted.trainable_parameters,
        }
        run.log(numbers)
        outcome: dict[str, Any] = {
            "method": name,
            "seed": seed,
            "settings": settings.of_run(name) | data,
            "device": tags["device"],
            "precision": inputs.precision,
            "mlflow_run_id": run.run_id,
            "numbers": numbers,
            "losses": fitted.losses,
            "answers": [asdict(answer) for answer in answers],
        }
        if isinstance(module, TOAST):
            outcome["steering"] = asdict(steering(module, inputs.tokenizer, inputs.test, inputs.device))
        with replace_folder(MODELS / f"{name}-{seed}") as target:
            save(module, target)
        with replace_folder(RESULTS / f"{name}-{seed}") as target:
            write_json(target / OUTCOME, outcome)
    print(f"{name}-{seed}: log loss {numbers['log_loss']:.3f} per answer token, {fitted.seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.language.train", description=__doc__)
    parser.add_argument("method", help="a name under methods: in params.yaml")
    parser.add_argument("seed", type=int, help="of what starts at random, the draws and the order")
    arguments = parser.parse_args()
    settings = load_settings()

    def view(now: Settings) -> Any:
        return now.methods.get(arguments.method), now.training, now.compare.answering

    with settings_kept(settings, view, f"{arguments.method}-{arguments.seed}", *code_of("train")):
        train(arguments.method, arguments.seed, settings)


if __name__ == "__main__":
    run(main)
    leave()
