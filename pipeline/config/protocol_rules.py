"""What the protocol asks of the other sections of params.yaml."""

from typing import TYPE_CHECKING

from pipeline.config.known_domains import KNOWN_DOMAINS

if TYPE_CHECKING:
    from pipeline.config.params import Params

PRETUNED = "data/pretuned/decoders.safetensors"


def check_protocol(params: "Params") -> None:
    """Raise ValueError where the protocol and another section contradict each other."""
    protocol = params.protocol
    if protocol.name == "leave_one_domain_out":
        _check_domains(params)
    if protocol.name == "sampling_ratios" and params.dataset.train_fraction != 1:
        raise ValueError(
            "dataset.train_fraction must be 1 with protocol.name sampling_ratios, which draws the shares "
            f"itself; found {params.dataset.train_fraction}"
        )
    if params.tune.target is not None and params.tune.target not in protocol.targets:
        raise ValueError(
            f"tune.target {params.tune.target!r} is none of protocol.targets, {', '.join(protocol.targets)}"
        )
    if protocol.refit:
        _check_refit(params)
    _check_decoders(params)


def _check_domains(params: "Params") -> None:
    """Of an own folder of images the domains are known only when it is read."""
    dataset = params.dataset
    domains = dataset.domains or KNOWN_DOMAINS.get(dataset.name)
    if domains is None:
        return
    if len(domains) < 2:
        raise ValueError(
            "protocol.name leave_one_domain_out needs two domains or more, but dataset.domains has only "
            f"{domains[0]}"
        )
    for target in params.protocol.targets:
        if target not in domains:
            raise ValueError(
                f"protocol.targets names the domain {target!r}, which {dataset.name} does not have here; the "
                f"domains are {', '.join(domains)}"
            )


def _check_decoders(params: "Params") -> None:
    """What reads pre-tuned decoders has to wait for them."""
    for name in params.protocol.methods:
        decoders = getattr(params.methods[name].adapter, "decoders", None)
        if decoders is None:
            continue
        if decoders != PRETUNED:
            raise ValueError(
                f"methods.{name}.adapter.decoders must be {PRETUNED}, which the stage pretune writes, or "
                f"null, which starts at random; found {decoders!r}"
            )
        if params.protocol.toast_after != PRETUNED:
            raise ValueError(
                f"methods.{name}.adapter.decoders are pre-tuned, so its stage must wait for the stage "
                f"pretune; set protocol.toast_after: {PRETUNED}"
            )


def _check_refit(params: "Params") -> None:
    """Refitting leaves no validation images to choose by."""
    methods = params.protocol.methods
    if params.promotion.method == "best":
        raise ValueError(
            "promotion.method best chooses on the validation images, which protocol.refit trains on; name "
            f"one of {', '.join(methods)}"
        )
