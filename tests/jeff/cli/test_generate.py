"""``jeff generate`` refuses what does not fit before it reads or computes anything."""

import json
import sys

import jax.numpy as jnp
import pytest
from support import tiny_checkpoints

from jeff.models import answer


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-new-tokens", "0"), "max_new_tokens must be at least 1, got 0"),
        (("--temperature", "-1"), "temperature must be at least 0, got -1.0"),
        (("--top-k", "2"), "top_k 2 needs a temperature above 0"),
        (("--temperature", "1", "--top-p", "1.5"), "top_p must be in (0, 1], got 1.5"),
        (("--dtype", "float8"), "argument --dtype: unknown 'float8'; did you mean"),
    ],
)
def test_bad_settings_are_refused_before_the_model_is_read(cli, words, message):
    code, said, err = cli("generate", "nowhere", "--tokens", "1", *words)
    assert code == 2 and not said
    assert message in err


def test_the_dtype_and_what_only_the_model_tells(cli, tmp_path, monkeypatch):
    folder = tiny_checkpoints.checkpoint(tmp_path / "model", "qwen2_vl")
    ask = ("generate", folder, "--tokens", "1 2", "--max-new-tokens", "2", "--json")
    code, _, err = cli(*ask, "--temperature", "1", "--top-k", "161")
    assert code == 2 and "top_k must be in [1, 160], got 161" in err
    code, _, err = cli("generate", folder, "--prompt", "caf\udce9")
    assert code == 2 and "the prompt is no text" in err

    def answered(model, inputs, **settings):
        gate = model.params["decoder"]["layers"]["mlp"]["gate"]["kernel"]
        assert gate.shape == (2, 64, 128) and gate.dtype == jnp.bfloat16  # stacked
        assert inputs["tokens"].tolist() == [[1, 2]]
        assert settings["max_new_tokens"] == 2 and settings["top_k"] is None
        return answer.Answer("said", (5, 6), 2, False)

    module = sys.modules["jeff.cli.generate"]  # its function has the same name
    monkeypatch.setattr(module, "answer", answered)
    code, said, err = cli(*ask, "--dtype", "bfloat16")
    assert code == 0 and json.loads(said)["tokens"] == [5, 6], err
