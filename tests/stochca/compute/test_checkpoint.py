import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stochca.compute.checkpoint import (
    CHECKPOINT,
    PREVIOUS,
    cloned,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)


def state(step: int) -> dict[str, object]:
    shared = torch.arange(4.0)
    return {
        "step": step,
        "weights": {"a.b": torch.full((2, 3), float(step)), "view": shared[1:3], "base": shared},
        "by_number": {0: {"moment": torch.ones(1, dtype=torch.bfloat16)}, 1: {}},
        "list": [1, None, "text", True, 0.1, [torch.zeros(2, dtype=torch.uint8)]],
    }


def assert_same(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        assert isinstance(found, list)
        for value, other in zip(found, expected, strict=True):
            assert_same(value, other)
    else:
        assert found == expected


def test_round_trip_of_any_nest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(3))
    assert_same(load_checkpoint(tmp_path), state(3))


def test_nothing_there(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_the_one_before_is_kept_and_no_temporary_file(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, PREVIOUS]
    (tmp_path / CHECKPOINT).unlink()  # killed between the two renames
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found["step"] == 2


@pytest.mark.parametrize("damage", ["empty", "header", "half", "text"])
def test_a_damaged_checkpoint_gives_the_one_before(damage: str, tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "header": struct.pack("<Q", 1 << 60) + content[8:],
        "half": content[: len(content) // 2],
        "text": b"not a checkpoint at all",
    }
    path.write_bytes(damaged[damage])
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found["step"] == 1


def test_a_pickle_is_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'exploded')!r}, 'w')",)

    torch.save(Bomb(), tmp_path / CHECKPOINT)
    assert load_checkpoint(tmp_path) is None
    assert not (tmp_path / "exploded").exists()


def test_weights_are_written_whole(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 2).T}  # not contiguous
    save_weights(tmp_path / "model.safetensors", weights)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], weights["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_copy_does_not_follow_its_original() -> None:
    weights = {"a": torch.zeros(2)}
    copy = cloned(weights)
    weights["a"] += 1
    assert torch.equal(copy["a"], torch.zeros(2))
