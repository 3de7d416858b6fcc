"""Tied weights in a state."""

import pickle

from safetensors.torch import load_file, save_file

from stochca.language.tied import save_tied_once
from tests.stochca.language.tiny import tiny_model


def test_tied_weights_stand_once_and_both_kinds_of_states_load(tmp_path) -> None:  # type: ignore[no-untyped-def]
    whole = tiny_model().state_dict()
    model = tiny_model()
    save_tied_once(model)
    for each in (model, pickle.loads(pickle.dumps(model))):
        assert whole.keys() - each.state_dict().keys() == {"lm_head.weight"}
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    for state in (load_file(tmp_path / "state.safetensors"), whole):
        other = tiny_model(seed=1)
        save_tied_once(other)
        other.load_state_dict(state)
        assert other.lm_head.weight is other.model.embed_tokens.weight
        assert all(value.equal(whole[name]) for name, value in other.state_dict().items())
    untied = tiny_model(tie_word_embeddings=False)
    save_tied_once(untied)
    assert "lm_head.weight" in untied.state_dict()
