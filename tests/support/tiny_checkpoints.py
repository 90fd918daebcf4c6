"""The golden checkpoints of vision-language models with a tokenizer and pictures."""

import json
import pathlib
import shutil

import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SPECIAL = {
    "llava_onevision": {"<image>": 158},
    "qwen2_vl": {
        "<|vision_start|>": 156,
        "<|vision_end|>": 157,
        "<|image_pad|>": 158,
    },
}
WORDS = "what is it ? a red blue square user assistant the picture shows".split()


def checkpoint(folder, model):
    """Copies a golden checkpoint (``"qwen2_vl"``) and gives it a tokenizer."""
    source = GOLDEN / f"{model}_tiny"
    if not source.is_dir():
        pytest.skip(f"{source.name} is not in tests/golden")
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder)
    tokenizer(SPECIAL[model]).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    return folder


def tokenizer(special):
    """A tokenizer of a few words and ChatML's marks."""
    import tokenizers

    marks = {"<|im_start|>": 1, "<|im_end|>": 2, **special}
    vocabulary = {"<unk>": 0, "\n": 3} | {w: i for i, w in enumerate(WORDS, 10)}
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({**vocabulary, **marks}, unk_token="<unk>")
    )
    made.add_special_tokens(list(marks))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return made


def pictures(folder):
    """Two pictures and the lines that ask about them."""
    from PIL import Image

    folder.mkdir(parents=True)
    lines = []
    for name, color in (("red", (200, 30, 20)), ("blue", (10, 20, 220))):
        pixels = np.full((60, 90, 3), 240, np.uint8)
        pixels[20:40, 30:60] = color
        Image.fromarray(pixels).save(folder / f"{name}.png")
        line = {"prompt": "what is it ?", "answer": f"a {name} square"}
        lines.append(json.dumps({"image": f"{name}.png", **line}))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def arrays(folder, model):
    """The ready-made rows that came with a golden checkpoint."""
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN / f"{model}_tiny" / "io.npz", folder / "rows.npz")
    return folder
