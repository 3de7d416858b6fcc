"""params.yaml, typed: unknown keys, values out of range and nonsensical methods are refused by path.

Everything a stage needs to know is read here, before any heavy import and before any work.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.config.choices import adapter, with_choices_made
from pipeline.config.datasets import registered
from pipeline.config.extensions import load_extensions
from pipeline.config.sections import (
    Backbone,
    Compare,
    Dataset,
    MethodName,
    Pretune,
    Promotion,
    Protocol,
    Section,
    Tracking,
    Tune,
    Workers,
    ends,
)
from pipeline.config.sentences import sentence, validated
from pipeline.config.tuned import (
    is_tuned,
    notes_on_what_was_found,
    read_best,
    resolved,
    searched_otherwise,
)
from pipeline.config.yaml_text import read_yaml
from pipeline.runtime.kept import files_kept
from pipeline.runtime.paths import BEST, PARAMS_FILE, PREPARED, PRETUNED
from stochca.config import Method
from stochca.config.training import BUDGETS, Training
from stochca.errors import UserError

DECODERS = str(PRETUNED / "decoders.safetensors")


class Params(Section):
    extensions: list[str]  # files in extensions/, imported first
    image_size: int = Field(ge=8)  # pixels, side of the square the backbone sees
    resize: int | None = Field(ge=8)  # pixels; of the square that image_size is cropped out of
    backbone: Backbone
    teachers: dict[MethodName, Backbone]  # for attention.teacher
    dataset: Dataset
    training: Training
    methods: dict[MethodName, Method]
    protocol: Protocol
    compare: Compare
    workers: Workers
    tune: Tune
    pretune: Pretune
    promotion: Promotion
    tracking: Tracking

    @model_validator(mode="before")
    @classmethod
    def _read_choices(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        if "train" in raw:
            raise ValueError("the key 'train' is called 'workers' now; rename it")
        if isinstance(raw.get("compare"), Mapping) and "bootstrap_samples" in raw["compare"]:
            raise ValueError(
                "the key 'compare.bootstrap_samples' is gone, because intervals now come from the spread "
                "over seeds and images, without resampling; delete it"
            )
        methods, tune = raw.get("methods"), raw.get("tune")
        if isinstance(methods, Mapping):
            methods = {name: with_choices_made(each, f"methods.{name}") for name, each in methods.items()}
            raw = {**raw, "methods": methods}
        if isinstance(tune, Mapping) and "method" in tune:
            method = with_choices_made(tune["method"], "tune.method")
            raw = {**raw, "tune": {**tune, "method": method}}
        return raw

    @model_validator(mode="after")
    def _images_are_cropped_out_of_larger_ones(self) -> "Params":
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(
                f"resize {self.resize} is smaller than image_size {self.image_size}, which is cropped out "
                "of it; raise it, or set it to null"
            )
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> "Params":
        """Methods that are trained have to be defined, and those that are looked at to be trained."""
        methods, trained = self.methods, self.protocol.methods
        undefined = ", which methods does not define; defined are"
        for key in ("baseline", "combined"):
            for name in getattr(self.protocol, key):
                _check_known(f"protocol.{key} names the method", name, methods, undefined)
        _check_known("the stage stochca names the method", "stochca", methods, undefined)
        untrained = " is not trained; add it to protocol.baseline or protocol.combined, or choose one of"
        _check_known("compare.reference", self.compare.reference, trained, untrained)
        _check_known("promotion.method", self.promotion.method, ["best", *trained], untrained)
        for name in self.compare.analysed:
            _check_known("compare.analysed", name, trained, untrained)
            if not methods[name].adapter.changes_backbone:
                raise ValueError(
                    f"compare.analysed names {name!r}, whose adapter {methods[name].adapter.name!r} leaves "
                    "the blocks as they were pretrained; choose methods that train them"
                )
        for name, method in methods.items():
            teacher = getattr(method.attention, "teacher", None)
            if teacher is not None:
                undefined = ", which teachers does not define (null means the backbone itself); defined are"
                _check_known(f"methods.{name}.attention.teacher is", teacher, self.teachers, undefined)
        if self.tune.target is not None:
            problem = " is none of protocol.targets,"
            _check_known("tune.target", self.tune.target, self.protocol.targets, problem)
        return self

    @model_validator(mode="after")
    def _protocol_suits_the_dataset(self) -> "Params":
        """Of an own folder of images the domains are known only when it is read."""
        dataset, protocol = self.dataset, self.protocol
        domains = dataset.domains or registered(dataset.name).domains
        if protocol.name == "leave_one_domain_out" and domains is not None:
            if len(domains) < 2:
                raise ValueError(
                    "protocol.name leave_one_domain_out needs two domains or more, but dataset.domains has "
                    f"only {domains[0]}"
                )
            for target in protocol.targets:
                problem = f", which {dataset.name} does not have here; the domains are"
                _check_known("protocol.targets names the domain", target, domains, problem)
        if protocol.name == "sampling_ratios" and dataset.train_fraction != 1:
            raise ValueError(
                "dataset.train_fraction must be 1 with protocol.name sampling_ratios, which draws the shares "
                f"itself; found {dataset.train_fraction}"
            )
        if protocol.refit and self.promotion.method == "best":
            raise ValueError(
                "promotion.method best chooses on the validation images, which protocol.refit trains on; "
                f"name one of {', '.join(protocol.methods)}"
            )
        return self

    @model_validator(mode="after")
    def _stages_wait_for_what_they_read(self) -> "Params":
        """For what the search has found, and for pre-tuned decoders."""
        for name in self.protocol.methods:
            method = self.methods[name]
            if is_tuned(method):
                key = f"methods.{name}.attention.prob is tuned"
                if name in self.protocol.baseline:
                    raise ValueError(
                        f"{key}, but the stage baseline does not wait for the search; move the method from "
                        "protocol.baseline to protocol.combined"
                    )
                if self.protocol.stochca_after != str(BEST):
                    raise ValueError(
                        f"{key}, so its stage must wait for the search; set protocol.stochca_after: {BEST}"
                    )
            decoders = getattr(method.adapter, "decoders", None)
            if decoders not in (None, DECODERS):
                raise ValueError(
                    f"methods.{name}.adapter.decoders must be {DECODERS}, which the stage pretune writes, or "
                    f"null, which starts at random; found {decoders!r}"
                )
            if decoders is not None and self.protocol.toast_after != DECODERS:
                raise ValueError(
                    f"methods.{name}.adapter.decoders are pre-tuned, so its stage must wait for the stage "
                    f"pretune; set protocol.toast_after: {DECODERS}"
                )
        return self

    @model_validator(mode="after")
    def _domains_that_are_held_out_decide_nothing(self) -> "Params":
        """One search and one pre-tuning serve the runs of all targets."""
        if self.protocol.name != "leave_one_domain_out":
            return self
        for name in self.protocol.methods:
            method = self.methods[name]
            if is_tuned(method) and len(self.protocol.targets) > 1:
                raise ValueError(
                    f"methods.{name}.attention.prob is tuned, but the search without {self.search_target} "
                    "chooses by images of the other protocol.targets, which leave_one_domain_out holds out "
                    "too; leave one target there at a time, or write a probability"
                )
            images = Path(self.pretune.images)
            if getattr(method.adapter, "decoders", None) and images in (PREPARED, Path(self.dataset.root)):
                raise ValueError(
                    f"methods.{name}.adapter.decoders are pre-tuned on pretune.images {images}, where the "
                    "domains are that leave_one_domain_out holds out; name a folder of other images there, "
                    "or set the decoders to null"
                )
        return self

    @model_validator(mode="after")
    def _methods_can_be_trained(self) -> "Params":
        self._overridden({}, "training.")
        for name, method in self.methods.items():
            training = self._overridden(method.training, f"methods.{name}.training.")
            try:
                share = training.micro_batch(self.workers.num_workers)
            except ValueError as error:
                raise ValueError(f"workers.num_workers, with methods.{name}.training: {error}") from None
            if name not in self.protocol.methods:  # a common setting need not suit what is not trained
                continue
            self._check_domains(training, f"methods.{name}.training")
            try:
                method.check_training(training, micro_batch=share, refit=self.protocol.refit)
            except ValueError as error:
                raise ValueError(f"methods.{name}.{error}") from None
        self._overridden(self.pretune.training, "pretune.training.")
        return self

    @model_validator(mode="after")
    def _search_can_be_trained(self) -> "Params":
        tune = self.tune
        training = self._overridden(tune.training, "tune.training.")
        self._check_domains(training, "tune.training")
        for rate in () if tune.lr is None else ends(tune.lr):
            trained = {"tune.lr": {**tune.training, "lr": rate}} | {
                f"tune.lr, with methods.{name}.training": {"lr": rate, **method.training}
                for name, method in self.methods.items()
                if is_tuned(method)  # and so takes the rate that is found, unless it sets one
            }
            for where, overrides in trained.items():
                try:
                    self.training_with(overrides)
                except ValidationError as error:
                    raise ValueError(f"{where}: {sentence(error, Training)}") from None
        return self

    def _check_domains(self, training: Training, where: str) -> None:
        try:
            training.check_domains(balanced=self.protocol.name == "leave_one_domain_out")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def _overridden(self, overrides: Mapping[str, Any], prefix: str) -> Training:
        """Raise ValueError, with the key's path, where settings are not valid over the common ones."""
        try:
            training = self.training_with(overrides)
        except ValidationError as error:
            raise ValueError(sentence(error, Training, prefix)) from None
        if isinstance(training.class_weights, tuple):  # in the order of names that nobody sees written down
            raise ValueError(
                f"{prefix}class_weights must give each weight to a class by its name, as in "
                f"{{cracked: 5, good: 1}}, found the list {list(training.class_weights)}"
            )
        return training

    def trained_with(self, name: str) -> tuple[Method, Training]:
        """A method, with what the search found where it is tuned, and the settings that it trains with.

        Raises:
            UserError: the method is tuned and there is no result of the search.
        """
        method = self.methods[name]
        if is_tuned(method):
            method = resolved(method, read_best())
        return method, self.training_with(method.training)

    @property
    def notes(self) -> list[str]:
        """What is allowed and may not be meant: tuned methods that attend otherwise than the search does."""
        methods = {name: self.methods[name] for name in self.protocol.methods}
        found = (searched_otherwise(name, each, self.tune.attention) for name, each in methods.items())
        return [note for note in found if note]

    @property
    def search_target(self) -> str:
        """The target that the stage `tune` searches for."""
        return self.tune.target or self.protocol.targets[0]

    def notes_on_tuned(self, name: str) -> list[str]:
        """What a reader of the method's results should know of the search; nothing, where it is not tuned.

        Raises:
            UserError: the method is tuned and there is no result of the search.
        """
        method = self.methods[name]
        return notes_on_what_was_found(method, read_best(), self.training.lr) if is_tuned(method) else []

    def training_of(self, method: str) -> Training:
        """The training settings of a method: the common ones under its own overrides."""
        return self.training_with(self.methods[method].training)

    def training_with(self, overrides: Mapping[str, Any]) -> Training:
        """The common training settings under some overrides, of which a budget replaces the common one."""
        common = dataclasses.asdict(self.training)
        if any(overrides.get(budget) is not None for budget in BUDGETS):
            common |= dict.fromkeys(BUDGETS)
        augmentation = overrides.get("augmentation", {})
        if isinstance(augmentation, Mapping):  # anything else is refused below
            augmentation = {**common["augmentation"], **augmentation}
        return adapter(Training).validate_python({**common, **overrides, "augmentation": augmentation})


def _check_known(key: str, name: str, known: Collection[str], problem: str) -> None:
    if name not in known:
        raise ValueError(f"{key} {name!r}{problem} {', '.join(known) or 'none'}")


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check the whole file.

    Raises:
        UserError: the file is missing, is no YAML mapping, or breaks a rule; the sentence names the
            key by its path, what was found and what is allowed.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's folder, or create it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from None
    return parse_params(text, str(path))


def parse_params(text: str, subject: str) -> Params:
    """Check the text of a params.yaml, which errors call `subject`; as `load_params`."""
    try:
        raw = read_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{subject} can't be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(
            f"{subject} must hold sections such as training: and methods:, found {type(raw).__name__}"
        )
    load_extensions(raw.get("extensions", []), subject)
    return validated(Params, raw, subject)


@contextmanager
def settings_kept(params: Params, view: Callable[[Params], Any], what: str, *places: Path) -> Iterator[None]:
    """See afterwards that what the block has worked with, `view` of `params`, still stands in params.yaml.

    The file may be edited while a stage is at work; DVC would note the new settings for the old result. So it
    is with code and images, the files and folders `places`.

    Raises:
        UserError: it does not. A stage that ends so is not recorded by DVC, and runs again the next time.
    """
    before = view(params)
    with files_kept(what, *places):
        yield
    try:
        after = view(load_params())
    except UserError:
        after = None  # what stands there now can't be read
    if after != before:
        raise UserError(
            f"params.yaml was changed while {what} was under way, which went on with the settings that it "
            "had started with; its result is there, but not recorded by DVC: run dvc repro again for the new "
            "ones"
        )
