"""``jeff quantize`` and ``jeff generate``, from folder to folder."""

import json
import signal

import pytest
from support import tiny_checkpoints

from jeff.cli import main
from jeff.io import read_checkpoint, read_quantized
from jeff.mbq.blocks.store import BlockStore
from jeff.mbq.config import BalanceConfig
from jeff.mbq.folder.job import prepare, quantize_folder
from jeff.mbq.folder.settings import WORK_FOLDER, FolderSettings
from jeff.models import registry
from jeff.quantize import QTensor, QuantConfig

DOWN = ("--where", r"^decoder\.layers\.\d\.mlp\.down")  # little to compile
W3 = ("--bits", "3", "--group-size", "32", *DOWN)

# The process kills itself as soon as a block is on the disk.
KILLED = """
import os, signal, sys
from jeff.cli import main
from jeff.mbq.blocks.store import BlockStore
save = BlockStore.save
def once(*args):
    save(*args)
    os.kill(os.getpid(), signal.SIGKILL)
BlockStore.save = once
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def qwen(root):
    return tiny_checkpoints.checkpoint(root / "qwen", "qwen2_vl")


@pytest.fixture(scope="module")
def pairs(root):
    return tiny_checkpoints.pictures(root / "pairs")


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def words(source, calibration, out, *more):
    return [
        "quantize", str(source), "--calibration", str(calibration), "--out", str(out),
        *more,
    ]  # fmt: skip


def test_qwen2_vl_by_mbq_from_pictures_to_an_answer(cli, qwen, pairs, tmp_path):
    out = tmp_path / "out"
    code, said, err = cli(*words(qwen, pairs, out, *W3, "--grid", "2", "--json"))
    assert code == 0, err
    record = json.loads(said)
    assert record == json.loads((out / "quantize.json").read_text())
    assert record["calibration"]["tokens"] == {"language": 8, "vision": 12}
    assert record["blocks"] == 2 and len(record["groups"]) == 2
    assert all(0 < g["ratios"]["vision"] for g in record["groups"])
    assert "quantize blocks 2/2" in err
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json", "model.safetensors", "quantize.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    read = read_quantized(out)
    quantized = [n for n in read.tensors if isinstance(read.tensors[n], QTensor)]
    at = "model.layers.{}.mlp.{}_proj.weight"
    assert quantized == [at.format(i, "down") for i in (0, 1)]
    dense = read_checkpoint(qwen).tensors
    changed = {n for n in dense if n not in quantized}
    changed = {n for n in changed if (read.tensors[n] != dense[n]).any()}
    assert changed == {at.format(i, "up") for i in (0, 1)}  # the scales are in there
    assert read.metadata["method"] == "mbq"
    picture = str(pairs / "red.png")
    ask = ("--prompt", "what is it ?", "--image", picture, "--max-new-tokens", "4")
    draws = ("--temperature", "1", "--seed", "3")
    code, said, err = cli("generate", out, *ask, *draws, "--json")
    assert code == 0, err
    answer = json.loads(said)
    assert answer["prompt_tokens"] == 17 and len(answer["tokens"]) == 4
    assert isinstance(answer["text"], str) and not answer["stopped"]


def test_llava_onevision_by_rtn_to_autoawq(cli, root, tmp_path):
    source = tiny_checkpoints.checkpoint(root / "llava", "llava_onevision")
    rows = tiny_checkpoints.arrays(tmp_path / "rows", "llava_onevision")
    kind = ("--method", "rtn", "--group-size", "32", *DOWN, "--format", "autoawq")
    out = tmp_path / "out"
    code, said, err = cli(*words(source, rows, out, *kind))
    assert code == 0, err
    # 4 bits, and 16 + 8 for 32 of them
    assert said == f"{out}: 2 blocks by rtn, 0.03277 MB at 16 bits are 0.009728 MB\n"
    settings = json.loads((out / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "awq"
    assert "vision_tower" in settings["modules_to_not_convert"]
    assert registry.load(out).params["decoder"]["layers"][0]["mlp"]["down"]


def test_stopped_and_killed_it_goes_on_and_the_bytes_are_equal(
    cli, python, qwen, pairs, tmp_path, monkeypatch
):
    method, whole, out = ("--method", "rtn", *W3), tmp_path / "whole", tmp_path / "out"
    assert cli(*words(qwen, pairs, whole, *method))[0] == 0
    save = BlockStore.save

    def once(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(BlockStore, "save", once)
    code, _, err = cli(*words(qwen, pairs, out, *method))
    assert code == 130 and "finished blocks are kept in" in err
    monkeypatch.undo()
    blocks = out / WORK_FOLDER / "blocks"
    first = blocks / "stack1-block0000.safetensors"  # behind the tower
    assert [p.name for p in blocks.glob("stack*")] == [first.name]
    before = first.stat().st_mtime_ns
    (out / f".model.safetensors.{'0' * 16}.tmp").write_text("half")
    code, _, err = cli(*words(qwen, pairs, out, *method, "--seed", "1"))
    assert code == 2 and "was begun with seed=0, now it is 1" in err
    code, _, err = cli(*words(qwen, pairs, out, *method, "--bits", "4"))
    assert code == 2 and "was begun with config.weights.bits=3, now it is 4" in err
    killed = python("-c", KILLED, *words(qwen, pairs, out, *method))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = sorted(p.name for p in blocks.glob("stack*"))
    assert kept == [first.name, first.name.replace("0000", "0001")]
    assert first.stat().st_mtime_ns == before
    assert cli(*words(qwen, pairs, out, *method))[0] == 0
    assert bytes_of(out) == bytes_of(whole)
    assert not (out / WORK_FOLDER).exists()
    code, _, err = cli(*words(qwen, pairs, out, *method))
    assert code == 2 and "holds a finished model" in err


def test_a_gguf_file_becomes_a_folder_that_says_what_it_needs(golden, tmp_path):
    pytest.importorskip("gguf", reason="gguf is not installed")
    from support import tiny_gguf

    source = tmp_path / "gguf"
    source.mkdir()
    (source / "generation_config.json").write_text('{"eos_token_id": 7}')  # another's
    file = tiny_gguf.write(source / "a.gguf", golden("llama_tiny"))
    lines = tmp_path / "lines"
    lines.mkdir()
    texts = [json.dumps({"text": word * 9}) for word in ("abcab", "Parisab")]
    (lines / "a.jsonl").write_text("\n".join(texts))
    settings = FolderSettings(
        source=file,
        out=tmp_path / "out",
        calibration=lines,
        config=BalanceConfig(weights=QuantConfig(bits=4, group_size=32)),
        method="rtn",
        where=DOWN[1],
        max_length=16,
    )
    job = prepare(settings)
    found = registry.load(file)
    result = quantize_folder(job)
    assert job.source.model.params == {}  # let go before files were written
    assert result.record["calibration"]["cut"] == 2
    assert result.record["settings"]["max_length"] == 16
    assert result.record["calibration"]["tokens"] == {"language": 30}
    assert sorted(result.files) == [
        "chat_template.jinja", "config.json", "model.safetensors", "quantize.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads((settings.out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == 512 and "eos_token_id" in config
    again = registry.load(settings.out)
    assert again.stop_tokens == found.stop_tokens == (0,)
    assert again.chat == found.chat and again.config == found.config
    assert again.tokenizer.to_str() == found.tokenizer.to_str()


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        ([], (), "its files hold no sample"),
        (["{"], (), "a.jsonl:1: no JSON"),
        (['{"answer": "a"}'], (), 'a.jsonl:1: must be an object with "prompt" or'),
        (['{"prompt": "a", "x": 1}'], (), "a.jsonl:1: unknown x; known are answer"),
        (['{"prompt": "a", "image": "no.png"}'], (), "there is no picture"),
        (['{"prompt": "a", "image": "a.jsonl"}'], (), "cannot read a picture"),
        (['{"prompt": "a", "answer": "red"}'], (), "no sample has a token of an image"),
        (['{"prompt": "what"}'], (), "no sample has a token of an answer"),
        (['{"text": "what"}'], (), "the text has 1 tokens"),
        (
            ['{"text": "what is it"}'],
            ("--method", "rtn", "--group-size", "48"),
            "layer 'decoder.layers.0.attention.query.kernel': group_size 48",
        ),
        (
            ['{"text": "what is it"}'],
            ("--method", "rtn", "--samples", "2"),
            "has 1 samples, samples=2 were asked for",
        ),
        (
            ['{"text": "what is it"}'],
            ("--method", "rtn", "--where", "nothing"),
            "where='nothing' matches no product of a block",
        ),
        (
            ['{"text": "what is it"}'],
            ("--method", "rtn", "--format", "autoawq", *W3),
            "tensor 'model.layers.0.mlp.down_proj.weight': it has 3 bits; AutoAWQ",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named_before_work(cli, qwen, tmp_path, lines, more, message):
    folder = tmp_path / "lines"
    folder.mkdir()
    (folder / "a.jsonl").write_text("\n".join(lines))
    code, said, err = cli(*words(qwen, folder, tmp_path / "out", *more))
    assert (code, said) == (2, "") and err.count("\n") == 1, err
    assert message in err
    assert not (tmp_path / "out").exists()


def test_arguments_that_do_not_fit_are_named(cli, qwen, pairs, tmp_path):
    out = tmp_path / "out"

    def refuses(message, *more, source=qwen, calibration=pairs, out=out):
        code, _, err = cli(*words(source, calibration, out, *more))
        assert code == 2 and message in err, err

    refuses("method must be one of mbq, awq", "--method", "magic")
    refuses("bits must be one of (2, 3, 4, 8), got 5", "--bits", "5")
    refuses("where is no regular expression", "--where", "(")
    refuses("cannot tell of activations", "--activation-bits", "8", "--format", "gptq")
    refuses("max_length must be at least 2, got 1", "--max-length", "1")
    refuses("there is no folder", calibration=tmp_path / "nowhere")
    refuses("out must be another folder than source", out=qwen)
    empty = tmp_path / "empty"
    empty.mkdir()
    refuses("has neither *.jsonl nor *.npz", calibration=empty)
    refuses("must hold config.json", source=empty)
    code, _, err = cli("generate", qwen)
    assert code == 2 and "give either --prompt or --tokens" in err
    code, _, err = cli("generate", qwen, "--tokens", "1 x")
    assert code == 2 and "must be whole numbers" in err
    code, _, err = cli("generate", qwen, "--tokens", "999")
    assert code == 2 and "tokens must be in [0, 160)" in err
    code, _, err = cli("generate", qwen, "--prompt", " ")
    assert code == 2 and "the prompt is empty" in err


def test_help_is_printed():
    with pytest.raises(SystemExit) as stop:
        main(["quantize", "--help"])
    assert stop.value.code == 0
