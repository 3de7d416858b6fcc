"""Stage `untuned`: the backbone answers as it is, which says what every method begins with."""

import time
from dataclasses import asdict

from examples.language.paths import OUTCOME, RESULTS
from examples.language.settings import UNTUNED, load_settings
from pipeline.runtime.boundary import run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, write_json
from pipeline.runtime.startup import importing, leave


def main() -> None:
    settings = load_settings()
    with importing():
        from examples.language.training.evaluation import choose, evaluate
        from examples.language.training.inputs import load_inputs
    with exclusive("language-untuned"):
        inputs = load_inputs(settings.training.precision)
        started = time.perf_counter()
        answers = evaluate(
            inputs.model.to(inputs.device),
            inputs.tokenizer,
            choose(inputs.test, settings.compare),
            settings.compare,
            precision=inputs.precision,
            device=inputs.device,
        )
        numbers = {"answer_seconds": time.perf_counter() - started}
        with replace_folder(RESULTS / UNTUNED) as folder:
            write_json(
                folder / OUTCOME, {"numbers": numbers, "answers": [asdict(answer) for answer in answers]}
            )


if __name__ == "__main__":
    run(main)
    leave()
