import csv
import dataclasses
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline.config.tuned import read_best
from pipeline.search.records import Record, Rung
from pipeline.search.results import against_plain, best_of, plain_of, write_results
from pipeline.search.task import Task, plan
from stochca.config.selection import SELECTIONS
from stochca.errors import UserError
from tests.pipeline.search.small_project import STEPS, write_project


def trial(number: int, prob: float, *accuracies: float, step: int = STEPS, **known: object) -> Record:
    """A trial that ran to its end, or to `step`."""
    rungs = [Rung(step, accuracies)]
    record = Record(
        f"id-{number}", number, {"prob": prob}, rungs, 12.5, "host-1a2b3c", finished_at=60.0 * number
    )
    return dataclasses.replace(record, **known)  # type: ignore[arg-type]


ACCURACY = SELECTIONS["accuracy"]
PLAIN = trial(1, 0.0, 0.50, 0.52)
MIDDLE = trial(2, 0.1, 0.55, 0.57)
STOPPED = trial(3, 0.2, 0.80, 0.80, stopped_early=True, step=2)
FAILED = trial(4, 0.3, 0.90, 0.90, problem="training diverged")
SILENT = Record("id-5", 5, {"prob": 0.4}, problem="its machine was lost", finished_at=1.0)


def test_the_best_is_chosen_among_those_that_ran_to_the_end() -> None:
    assert best_of([PLAIN, MIDDLE, STOPPED, FAILED, SILENT], ACCURACY) is MIDDLE


def test_of_equals_the_smaller_probability_is_the_best() -> None:
    smaller = trial(6, 0.05, 0.57, 0.55)
    assert best_of([MIDDLE, smaller], ACCURACY) is smaller
    assert best_of([smaller, MIDDLE], ACCURACY) is smaller


def test_of_a_loss_the_smallest_is_the_best() -> None:
    loss = SELECTIONS["log_loss"]
    assert best_of([PLAIN, MIDDLE], loss) is PLAIN
    assert plain_of([PLAIN, trial(6, 0.0, 0.49, 0.49), MIDDLE], loss) is not PLAIN
    words = against_plain(trial(2, 0.1, 0.30, 0.32), PLAIN, 8, loss)
    assert words.startswith("-0.2000 log loss over plain fine-tuning (prob 0: 0.5100), beyond the noise")


def test_without_a_complete_trial_the_first_problem_is_told() -> None:
    with pytest.raises(UserError, match=r"no trial came to an end; .*: training diverged"):
        best_of([STOPPED, FAILED, SILENT], ACCURACY)


def test_plain_is_found_at_its_best_rate() -> None:
    faster = trial(6, 0.0, 0.53, 0.53)
    assert plain_of([PLAIN, faster, MIDDLE], ACCURACY) is faster
    assert plain_of([MIDDLE, STOPPED], ACCURACY) is None


@pytest.mark.parametrize(
    ("best", "plain", "words"),
    [
        # The spread of a difference is sqrt(2) times that of one run, 0.02 / sqrt(2): 0.02.
        (
            trial(2, 0.1, 0.521, 0.541),
            PLAIN,
            "+0.0210 accuracy over .*, beyond the noise: .* is 0.0200; being the best of 8",
        ),
        (trial(2, 0.1, 0.519, 0.539), PLAIN, "+0.0190 accuracy over .*, within the noise"),
        (PLAIN, PLAIN, "no probability did better than plain fine-tuning"),
        (MIDDLE, None, "was not among the trials"),
        (trial(2, 0.1, 0.55), trial(1, 0.0, 0.50), "with a single seed"),
    ],
)
def test_whether_it_is_beyond_the_noise_is_said_in_words(
    best: Record, plain: Record | None, words: str
) -> None:
    import re

    assert re.search(words.replace("+", r"\+"), against_plain(best, plain, 8, ACCURACY))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("project") / "small"
    params = write_project(folder, {"seeds": [3, 5]})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return plan(params)


def test_what_is_written(task: Task, tmp_path: Path) -> None:
    records = [PLAIN, MIDDLE, STOPPED, FAILED, SILENT]
    write_results(tmp_path, task, records)
    found = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert (found["prob"], found["trial"], found["trials"]) == (0.1, 2, 5)
    assert (found["stopped_early"], found["failed"]) == (1, 2)
    assert found["validation_accuracy"] == {"mean": 0.56, "std": pytest.approx(0.0002**0.5), "seeds": 2}
    assert read_best(tmp_path / "best.yaml").prob == 0.1
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert (rows[1]["validation_accuracy_seed_3"], rows[1]["validation_accuracy_seed_5"]) == ("0.55", "0.57")
    assert (rows[2]["stopped_early"], rows[2]["steps"]) == ("true", "2")
    assert (rows[4]["validation_accuracy"], rows[4]["problem"]) == ("", "its machine was lost")
    for name in ("accuracy_by_prob.png", "trials_over_time.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert len(set(picture.convert("RGB").resize((200, 120)).getdata())) > 20  # something is drawn


def test_a_probability_per_block_can_be_taken_too(task: Task, tmp_path: Path) -> None:
    blocks = {"prob_0": 0.1, "prob_1": 0.3, "lr": 1e-3}
    best = dataclasses.replace(MIDDLE, values=blocks)
    plain = dataclasses.replace(PLAIN, values={"prob_0": 0.0, "prob_1": 0.0, "lr": 1e-3})
    write_results(tmp_path, task, [plain, best])
    taken = read_best(tmp_path / "best.yaml")
    assert (taken.prob, taken.lr) == ((0.1, 0.3), 1e-3)
