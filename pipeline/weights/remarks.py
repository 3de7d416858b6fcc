"""What the name of a backbone leaves open about its weights, or has otherwise than they were trained."""

from collections.abc import Iterator

import timm

from pipeline.config.params import Backbone


def remarks(backbone: Backbone) -> Iterator[str]:
    """Sentences for the log, where timm knows several kinds of weights of this architecture."""
    base, _, tag = backbone.name.partition(".")
    default = timm.get_pretrained_cfg(backbone.name)
    if default is None or not default.tag:  # of an extension: nothing to compare with
        return
    of_any_tag = backbone.weights.startswith("file:") and not tag
    names = timm.list_models(f"{base}.*", pretrained=True) if of_any_tag else [backbone.name]
    configs = [timm.get_pretrained_cfg(name) for name in names]

    quick = [config.tag for config in configs if "QuickGELU" in str(config.notes)]
    if quick and "_quickgelu_" not in base:
        yield (
            f"{base} computes GELU, but the weights {', '.join(quick)} were trained with QuickGELU; for such "
            f"weights set the name to {base.replace('_clip_', '_clip_quickgelu_')}.{quick[0]}"
        )

    used = (default.mean, default.std, default.interpolation)
    others = [c.tag for c in configs if (c.mean, c.std, c.interpolation) != used]
    if others:
        mean, std, interpolation = used
        yield (
            f"{base} has no tag: images are prepared as for timm's {default.tag} (mean {mean}, std {std}, "
            f"{interpolation}); if the weights are of the kind of {', '.join(others)}, write that tag, as in "
            f"{base}.{others[0]}"
        )
