"""What the sections of params.yaml ask of each other. Every rule raises ValueError where it is broken."""

from collections.abc import Collection, Mapping

from pipeline.config.datasets import registered
from pipeline.config.sections import Backbone, Compare, Dataset, Promotion, Protocol, Tune
from pipeline.config.tuned import is_tuned
from pipeline.runtime.paths import BEST, PRETUNED
from stochca.config import Method

Methods = Mapping[str, Method]
DECODERS = str(PRETUNED / "decoders.safetensors")


def names_are_known(methods: Methods, protocol: Protocol, compare: Compare, promotion: Promotion) -> None:
    """Methods that are trained have to be defined, and those that are looked at to be trained."""
    undefined = ", which methods does not define; defined are"
    for key in ("baseline", "combined"):
        for name in getattr(protocol, key):
            _check_known(f"protocol.{key} names the method", name, methods, undefined)
    _check_known("the stage stochca names the method", "stochca", methods, undefined)
    untrained = " is not trained; add it to protocol.baseline or protocol.combined, or choose one of"
    _check_known("compare.reference", compare.reference, protocol.methods, untrained)
    _check_known("promotion.method", promotion.method, ["best", *protocol.methods], untrained)
    for name in compare.analysed:
        _check_known("compare.analysed", name, protocol.methods, untrained)
        if not methods[name].adapter.changes_backbone:
            raise ValueError(
                f"compare.analysed names {name!r}, whose adapter {methods[name].adapter.name!r} leaves the "
                "blocks as they were pretrained; choose methods that train them"
            )


def teachers_are_known(methods: Methods, teachers: Mapping[str, Backbone]) -> None:
    for name, method in methods.items():
        teacher = getattr(method.attention, "teacher", None)
        if teacher is not None:
            undefined = ", which teachers does not define (null means the backbone itself); defined are"
            _check_known(f"methods.{name}.attention.teacher is", teacher, teachers, undefined)


def _check_known(key: str, name: str, known: Collection[str], problem: str) -> None:
    if name not in known:
        raise ValueError(f"{key} {name!r}{problem} {', '.join(known) or 'none'}")


def targets_suit_the_dataset(protocol: Protocol, dataset: Dataset, tune: Tune) -> None:
    """Of an own folder of images the domains are known only when it is read."""
    domains = dataset.domains or registered(dataset.name).domains
    if protocol.name == "leave_one_domain_out" and domains is not None:
        if len(domains) < 2:
            raise ValueError(
                "protocol.name leave_one_domain_out needs two domains or more, but dataset.domains has only "
                f"{domains[0]}"
            )
        for target in protocol.targets:
            problem = f", which {dataset.name} does not have here; the domains are"
            _check_known("protocol.targets names the domain", target, domains, problem)
    if protocol.name == "sampling_ratios" and dataset.train_fraction != 1:
        raise ValueError(
            "dataset.train_fraction must be 1 with protocol.name sampling_ratios, which draws the shares "
            f"itself; found {dataset.train_fraction}"
        )
    if tune.target is not None:
        _check_known("tune.target", tune.target, protocol.targets, " is none of protocol.targets,")


def stages_wait_for_what_they_read(methods: Methods, protocol: Protocol) -> None:
    """For what the search has found, and for pre-tuned decoders."""
    for name in protocol.methods:
        if is_tuned(methods[name]):
            if name in protocol.baseline:
                raise ValueError(
                    f"methods.{name}.attention.prob is tuned, but the stage baseline does not wait for the "
                    "search; move the method from protocol.baseline to protocol.combined"
                )
            if protocol.stochca_after != str(BEST):
                raise ValueError(
                    f"methods.{name}.attention.prob is tuned, so its stage must wait for the search; set "
                    f"protocol.stochca_after: {BEST}"
                )
        decoders = getattr(methods[name].adapter, "decoders", None)
        if decoders not in (None, DECODERS):
            raise ValueError(
                f"methods.{name}.adapter.decoders must be {DECODERS}, which the stage pretune writes, or "
                f"null, which starts at random; found {decoders!r}"
            )
        if decoders is not None and protocol.toast_after != DECODERS:
            raise ValueError(
                f"methods.{name}.adapter.decoders are pre-tuned, so its stage must wait for the stage "
                f"pretune; set protocol.toast_after: {DECODERS}"
            )


def refit_leaves_a_choice(protocol: Protocol, promotion: Promotion) -> None:
    """Refitting leaves no validation images to choose by."""
    if protocol.refit and promotion.method == "best":
        raise ValueError(
            "promotion.method best chooses on the validation images, which protocol.refit trains on; name "
            f"one of {', '.join(protocol.methods)}"
        )
