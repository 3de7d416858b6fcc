import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.commands.use import preset_table, use_preset
from pipeline.config.datasets import DATASETS, registered
from pipeline.config.params import Params, load_params
from pipeline.config.presets import BASE, find_preset, preset_names
from pipeline.config.tuned import is_tuned
from stochca.config import StochasticCrossAttention, Swad
from stochca.config.training import Augmentation
from stochca.errors import UserError
from tests.imports import ROOT

NAMES = preset_names()
TRANSFER = ["cub", "stanford_cars", "fgvc_aircraft", "stanford_dogs"]
# DomainBed's domains, 32 images of each source domain; SWAD's steps between evaluations and r (its README).
HELD_OUT: dict[str, tuple[int, int, float]] = {
    "pacs": (96, 100, 0.3),
    "vlcs": (96, 50, 0.2),
    "office_home": (96, 100, 0.3),
    "terra_incognita": (96, 100, 0.3),
    "domain_net": (160, 500, 0.3),
}
# Training images by VPT's splits, then TOAST's learning rate and weight decay.
TOAST = {
    "toast_fgvc": (5394, 0.03, 5e-4),
    "toast_fgvc/nabirds": (21536, 0.01, 1e-2),
    "toast_fgvc/flowers": (1020, 0.01, 1e-4),
    "toast_fgvc/dogs": (10800, 0.02, 1e-4),
    "toast_fgvc/cars": (7329, 0.02, 1e-4),
}
# Protocol, targets and source.
SOLAR_CELLS = {
    "solar_cells": ("transfer", ["all"], None),
    "solar_cells/four": ("transfer", ["all"], "four"),
    "solar_cells/ratios": ("sampling_ratios", ["15", "30", "50", "100"], None),
    "solar_cells/domains": ("leave_one_domain_out", ["mono", "poly"], None),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the presets and the shipped params.yaml, to be in."""
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copy(BASE, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def composed() -> dict[str, Params]:
    return {name: find_preset(name).params() for name in NAMES}


def test_every_preset_and_variant_is_valid(composed: dict[str, Params]) -> None:
    assert set(composed) == {
        "default",
        "default/short_search",
        "openmoji_dg",
        "openmoji_methods",
        *(name + variant for name in TRANSFER for variant in ("", "/refit", "/refit_tuned")),
        *(name + variant for name in HELD_OUT for variant in ("", "/clip")),
        *TOAST,
        *SOLAR_CELLS,
    }


def test_the_default_is_what_is_shipped() -> None:
    assert find_preset("default").text == BASE.read_text() == (ROOT / "params.yaml").read_text()


def test_all_methods_that_the_default_backbone_allows_are_run(composed: dict[str, Params]) -> None:
    params = composed["openmoji_methods"]
    assert set(params.protocol.methods) == set(params.methods) - {"cotuning"}
    assert len(params.protocol.seeds) > 1


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_has_the_papers_settings(name: str, composed: dict[str, Params]) -> None:
    params = composed[name]
    training = params.training
    assert (params.image_size, params.resize, training.augmentation.crop) == (448, 550, "random")
    assert training.augmentation.horizontal_flip == 0.5
    assert training.lr == 5e-4 * 16 / 512
    assert (training.batch_size, training.steps, training.warmup) == (16, 10_000, 0.01)
    assert (training.optimizer, training.weight_decay, training.head_lr_scale) == ("adamw", 0.05, 1)
    assert (training.schedule, training.min_lr) == ("cosine", 0)
    assert params.backbone.name == "vit_base_patch16_224.augreg_in1k"
    assert params.dataset.validation == 0.1
    assert (params.protocol.name, params.protocol.refit) == ("sampling_ratios", False)
    assert params.protocol.targets == ["15", "30", "50", "100"]
    assert len(params.protocol.seeds) == 3
    assert params.methods["stochca"].attention == StochasticCrossAttention(prob=0.1)

    refit = composed[f"{name}/refit"]
    assert refit.protocol.refit
    assert refit.training == training
    # The search is not repeated by the second step: nothing that it depends on differs.
    tuned = composed[f"{name}/refit_tuned"]
    assert tuned.protocol.refit
    assert tuned.protocol.stochca_after == "reports/tune/best.yaml"
    assert is_tuned(tuned.methods["stochca"])
    assert (tuned.tune, tuned.training, tuned.dataset) == (params.tune, params.training, params.dataset)


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_domains_have_the_papers_settings(name: str, composed: dict[str, Params]) -> None:
    batch_size, eval_every, tolerance_ratio = HELD_OUT[name]
    params, clip = composed[name], composed[f"{name}/clip"]
    training = params.training
    assert (params.image_size, params.resize) == (224, None)
    assert training.batch_size == batch_size == 32 * (len(params.protocol.targets) - 1)
    assert (training.lr, training.weight_decay) == (1e-5, 1e-2)
    assert (training.steps, training.evaluations) == (5000, 5000 / 200)
    assert (training.schedule, training.warmup) == ("constant", 0)
    augmentation = training.augmentation
    assert (augmentation.crop, augmentation.scale) == ("random_resized", (0.7, 1.0))
    assert augmentation.color_jitter == (0.3, 0.3, 0.3, 0.3)
    assert (augmentation.horizontal_flip, augmentation.grayscale) == (0.5, 0.1)
    assert params.protocol.name == "leave_one_domain_out"
    assert sorted(params.protocol.targets) == sorted(registered(name).domains or ())
    assert params.protocol.seeds == [0, 1, 2]
    assert params.protocol.methods == ["finetune", "swad", "lp_ft", "stochca", "stochca+swad"]
    for method in ("swad", "stochca+swad"):
        assert params.methods[method].average == Swad(
            n_converge=3, n_tolerance=6, tolerance_ratio=tolerance_ratio
        )
        assert params.training_of(method).evaluations == 5000 / eval_every
    assert params.training_of("finetune").evaluations == 5000 / 200
    for method in ("stochca", "stochca+swad"):
        assert params.methods[method].attention == StochasticCrossAttention(prob=0.1)
    assert clip.backbone.name.startswith("vit_base_patch16_clip_")
    assert clip.model_dump(exclude={"backbone"}) == params.model_dump(exclude={"backbone"})


@pytest.mark.parametrize("name", TOAST)
def test_toast_counts_100_epochs(name: str, composed: dict[str, Params]) -> None:
    images, lr, weight_decay = TOAST[name]
    params = composed[name]
    training = params.training
    assert training.batch_size == 32
    assert (training.epochs, training.warmup) == (100, 0.1)
    assert abs(training.timetable(images).steps * 32 - 100 * images) < 32
    assert (training.lr, training.weight_decay, training.optimizer) == (lr, weight_decay, "momentum")
    table = ["linear_probe", "finetune", "vpt", "lora", "toast_lite", "toast"]
    assert params.protocol.methods == [*table, "stochca"]
    assert {params.training_of(method).lr for method in params.protocol.methods} == {lr}


def test_toasts_decoders_learn_by_their_own_settings(composed: dict[str, Params]) -> None:
    """SGD at the rate of pre-tuning would leave them as they start."""
    from stochca.training.pretuning import pretune
    from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit

    params = composed["toast_fgvc"]
    settings = dataclasses.replace(
        params.training_with(params.pretune.training),
        steps=60, batch_size=8, precision="fp32", workers=0, augmentation=Augmentation(),
    )  # fmt: skip
    pretuned = pretune(
        tiny_vit(num_classes=0), ColouredSquares(24), settings=settings, preprocessing=PREPROCESSING
    )
    assert pretuned.loss < 0.9 * pretuned.loss_before


@pytest.mark.parametrize("name", SOLAR_CELLS)
def test_solar_cells_are_photographs_in_whole_patches(name: str, composed: dict[str, Params]) -> None:
    params = composed[name]
    assert (params.dataset.name, params.dataset.domains) == ("solar_cells", None)
    assert (params.protocol.name, params.protocol.targets, params.dataset.source) == SOLAR_CELLS[name]
    assert params.image_size % 14 == 0
    assert params.image_size == 112


def test_momentum_is_plain_sgd_with_momentum(composed: dict[str, Params]) -> None:
    from stochca.training.optimisation import create_optimizer
    from tests.stochca.tiny import tiny_vit

    optimizer = create_optimizer(tiny_vit(), composed["toast_fgvc"].training)
    group = optimizer.param_groups[0]
    assert (type(optimizer).__name__, group["momentum"], group["nesterov"]) == ("SGD", 0.9, False)


def test_the_sizes_of_datasets_are_the_published_totals() -> None:
    registered("openmoji")
    sizes = {name: known.images for name, known in DATASETS.items() if known.domains}
    assert {name: sum(domains.values()) for name, domains in sizes.items()} == {
        "openmoji": 4 * 1898,
        "pacs": 9991,
        "vlcs": 10729,
        "office_home": 15588,
        "terra_incognita": 24330,
        "domain_net": 586575,
        "solar_cells": 2624 - 295 - 106,  # without a probability of a third, and of two
    }
    assert registered("flowers_102").images == {"train": 1020, "val": 1020, "test": 6149}
    assert registered("nabirds").images == {"train": 23929, "test": 24633}
    assert not registered("image_folder").images


def test_what_was_applied_before_leaves_nothing(project: Path) -> None:
    use_preset("vlcs")
    alone = Path("params.yaml").read_bytes()
    use_preset("cub/refit_tuned")
    assert Path("params.yaml").read_bytes() != alone
    use_preset("vlcs")
    assert Path("params.yaml").read_bytes() == alone
    use_preset("default")
    assert Path("params.yaml").read_bytes() == BASE.read_bytes()
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml", "presets"]


def test_comments_of_the_default_stay_and_sources_join_them(project: Path) -> None:
    use_preset("cub/refit")
    written = Path("params.yaml").read_text().splitlines()
    lines = {line.partition("#")[0].strip(): line.partition("# ")[2] for line in written}
    assert lines["steps: 10000"] == "optimiser steps; null: as many as epochs say [StochCA, transfer]"
    assert lines["layer_decay: null"] == (
        "learning rate factor per block counted from the head, such as 0.75; null: none"
    )
    for line in BASE.read_text().splitlines():
        comment = line.partition("# ")[2]
        assert any(comment in each for each in written), line
        if not line.strip():
            continue
        key = line.partition(":")[0]
        assert any(each.startswith(key) for each in written)
    assert written[0] == (
        "# Preset cub/refit: StochCA's transfer benchmark on CUB-200-2011, the second step, trained on all "
        "training images"
    )


def test_a_file_that_was_edited_is_kept(project: Path) -> None:
    use_preset("pacs")
    path = Path("params.yaml")
    edited = path.read_text().replace("seeds: [0, 1, 2]", "seeds: [7]")
    path.write_text(edited)
    lines = use_preset("cub")
    assert "  your own params.yaml is kept as params.previous.yaml" in lines
    assert Path("params.previous.yaml").read_text() == edited
    path.write_text("nonsense: [\n")
    lines = use_preset("cub")
    assert "  your own params.yaml is kept as params.previous.2.yaml" in lines
    assert Path("params.previous.yaml").read_text() == edited
    assert Path("params.previous.2.yaml").read_text() == "nonsense: [\n"
    path.write_text(edited)
    lines = use_preset("cub")
    assert "  your own params.yaml is kept as params.previous.yaml" in lines
    assert not [line for line in use_preset("pacs") if "kept" in line]
    assert load_params().protocol.seeds == [0, 1, 2]


def test_what_must_be_downloaded_is_said_until_it_is_there(project: Path) -> None:
    def asked() -> list[str]:
        return [line for line in use_preset("cub") if line.startswith("  to download: ")]

    (line,) = asked()
    assert "CUB-200-2011 from https://www.vision.caltech.edu/" in line
    assert line.endswith("put the archives, or what they hold, into data/raw/cub_200_2011/")
    Path("data/raw/cub_200_2011").mkdir(parents=True)
    assert asked() == []
    assert "  license of the images: " in "\n".join(use_preset("solar_cells"))


def test_the_table_lists_all(project: Path) -> None:
    header, *rows = [line.split(maxsplit=4) for line in preset_table()]
    assert header == ["name", "dataset", "protocol", "runs", "what"]
    assert [row[0] for row in rows] == NAMES
    runs = {row[0]: row[3] for row in rows}
    assert (runs["default"], runs["cub"], runs["pacs"], runs["domain_net"]) == ("5", "120", "60", "90")


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("cub", "title: x\nparms: {}", "presets/cub.yaml: unknown key 'parms'; did you mean 'params'"),
        ("cub", "params: {}", "presets/cub.yaml: the key 'title' is missing"),
        ("cub", "[1]", "presets/cub.yaml must hold keys such as title: and params:, found CommentedSeq"),
        ("cub", "title: [", "presets/cub.yaml can't be read as YAML"),
        (
            "cub",
            "title: x\nparams: 5",
            "presets/cub.yaml: params: must hold sections of params.yaml such as training:, found 5",
        ),
        (
            "cub",
            "title: x\nvariants: {refit: {title: y, parms: {}}}",
            "presets/cub.yaml: unknown key 'variants.refit.parms'; did you mean 'params'",
        ),
        ("cub", "title: x\nextends: common/gone.yaml", "presets/common/gone.yaml is missing"),
        (
            "cub",
            "title: x\nparams: {training: {stepz: 3}}",
            "the preset cub: unknown key 'training.stepz'; did you mean 'steps'",
        ),
        (
            "cub",
            "title: x\nparams: {methods: {new: {adapter: hat}}}",
            "the preset cub: methods.new.adapter must be one of .*found 'hat'",
        ),
    ],
)
def test_mistakes_in_a_preset_are_named_and_leave_params_alone(
    file: str, text: str, sentence: str, project: Path
) -> None:
    (project / "presets" / f"{file}.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        use_preset(file)
    assert Path("params.yaml").read_bytes() == BASE.read_bytes()
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml", "presets"]


def test_unknown_presets_are_told_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"no preset 'cubb'; did you mean cub\? there are cub, cub/refit, .*vlcs"
    ):
        use_preset("cubb")
    with pytest.raises(UserError, match="no preset 'cub/clip'"):
        use_preset("cub/clip")
    with pytest.raises(UserError, match=r"no preset '\.\./params'"):
        use_preset("../params")
    with pytest.raises(UserError, match=r"name a preset: cub, cub/refit, .*, vlcs, vlcs/clip"):
        use_preset(None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no folder presets with presets here; run from the project"):
        use_preset("cub")


def overlaid(base: str, *overlays: str) -> Any:
    from pipeline.config.presets import merged, read_yaml, write_yaml

    return write_yaml(merged(base, [read_yaml(text) for text in overlays]))


def test_methods_are_merged_by_name_and_lists_replaced() -> None:
    base = (
        "a: {b: 1, c: [1, 2]}\nmethods:\n  old: {adapter: head} # one\n  kept: {}             # two\n\nz: 1\n"
    )
    text = overlaid(base, "a: {c: [3]}\nmethods:\n  old: {phases: lp_ft}  # mine\n  new:\n    adapter: all\n")
    assert yaml.safe_load(text) == {
        "a": {"b": 1, "c": [3]},
        "methods": {"old": {"phases": "lp_ft"}, "kept": {}, "new": {"adapter": "all"}},
        "z": 1,
    }
    assert "  old: {phases: lp_ft} # one [mine]\n" in text
    assert "  kept: {}             # two\n\nz: 1\n" in text


def test_a_later_overlay_takes_the_source_of_an_earlier_one_away() -> None:
    base = "a: 1   # number\nb: 2   # other\n"
    assert overlaid(base, "a: 5  # first\nb: 3  # first", "a: 6", "b: 4  # second") == (
        "a: 6   # number\nb: 4   # other [second]\n"
    )
