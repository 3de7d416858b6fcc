"""Stage `untuned`: the backbone answers as it is, which says what every method begins with."""

import time
from dataclasses import asdict
from typing import Any

from examples.language.paths import HERE, OUTCOME, RESULTS
from examples.language.settings import UNTUNED, Settings, digests_of_data, load_settings, settings_kept
from pipeline.runtime.boundary import run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, write_json
from pipeline.runtime.paths import CODE
from pipeline.runtime.startup import importing, leave


def main() -> None:
    settings = load_settings()

    def view(now: Settings) -> Any:
        return now.of_run(UNTUNED)

    with importing():
        from examples.language.training.evaluation import choose, evaluate
        from examples.language.training.inputs import load_inputs
    files = [CODE / HERE / name for name in ("untuned.py", "training", "text")]
    with exclusive("language-untuned"), settings_kept(settings, view, "the stage untuned", *files):
        inputs = load_inputs(settings.training.precision)
        data = digests_of_data(decoders=False)
        started = time.perf_counter()
        answers = evaluate(
            inputs.model.to(inputs.device),
            inputs.tokenizer,
            choose(inputs.test, settings.compare),
            settings.compare,
            precision=inputs.precision,
            device=inputs.device,
        )
        outcome = {
            "settings": settings.of_run(UNTUNED) | data,
            "numbers": {"answer_seconds": time.perf_counter() - started},
            "answers": [asdict(answer) for answer in answers],
        }
        with replace_folder(RESULTS / UNTUNED) as folder:
            write_json(folder / OUTCOME, outcome)


if __name__ == "__main__":
    run(main)
    leave()
