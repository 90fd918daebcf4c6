"""Loading a published model from its folder, whatever its architecture."""

import contextlib
import dataclasses
import importlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jeff.io.checkpoint import CONFIG_FILE, read_checkpoint, read_json
from jeff.io.quantized import read_quantized
from jeff.models.chat.format import ChatFormat, chat_format
from jeff.models.decoder.model import stack_layers_in_place
from jeff.models.gguf.file import read_gguf, require
from jeff.models.gguf.tokenizer import gguf_chat_format, gguf_tokenizer
from jeff.models.tensors import renamed, to_params

__all__ = ["ARCHITECTURES", "Model", "architecture", "load", "locate", "renamer"]

ARCHITECTURES = {
    "llama": "jeff.models.llama",
    "llava_onevision": "jeff.models.llava_onevision",
    "qwen2": "jeff.models.llama",
    "qwen2_vl": "jeff.models.qwen2_vl",
}
"""The module of each ``model_type``; imported when needed."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model ready to run.

    Attributes:
      architecture: Its ``model_type``.
      config: Settings of its module; ``config.decoder`` are the decoder's.
      params: Parameters, with ``decoder``.
      apply: ``apply(params, inputs) -> logits [batch, slots, vocabulary]``, with
        `config` filled in.
      embed: ``embed(params, inputs) -> Sequence``, likewise.
      tokenizer: A ``tokenizers.Tokenizer``, or ``None``; then `notes` say why.
      chat: How chats become text; ChatML if the model does not say.
      stop_tokens: Tokens that end an answer.
      folder: Where the model was read from.
      activation_bits: Width of the dynamic activation codes that a quantized model
        was made for; ``None`` if activations stay as they are.
      notes: Lines about what was not found, could not be read, or is not held as it
        was stored.
    """

    architecture: str
    config: Any
    params: dict[str, Any]
    apply: Callable[..., Any]
    embed: Callable[..., Any]
    tokenizer: Any
    chat: ChatFormat
    stop_tokens: tuple[int, ...]
    folder: pathlib.Path
    activation_bits: int | None = None
    notes: tuple[str, ...] = ()


def architecture(model_type: Any) -> Any:
    """The module of an architecture.

    Args:
      model_type: What ``config.json`` calls it.

    Returns:
      The module, with ``config_from_json``, ``tensor_table``, ``rename``, ``embed`` and
      ``apply``.

    Raises:
      ValueError: If it is unknown; the message lists the known ones.

    Examples:
      >>> architecture("qwen2").__name__
      'jeff.models.llama'
      >>> architecture("gpt2")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: unknown model_type 'gpt2'; known: llama, ...
    """
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"unknown model_type {model_type!r}; known: {known}")
    return importlib.import_module(ARCHITECTURES[model_type])


def load(
    folder: str | os.PathLike[str], *, dtype: Any = jnp.float32, stacked: bool = False
) -> Model:
    """Reads a model: a Hugging Face folder, or a GGUF file of a Llama model.

    Programs of stacked layers compile in a fraction of the time that listed ones need.

    Args:
      folder: Holds ``config.json`` and safetensors files, dense or quantized (see
        `jeff.io.read_quantized`), or exactly one ``.gguf`` file instead; or is the path
        of such a file.
      dtype: Floating dtype of the parameters, and that packed weights decode to;
        ``None`` keeps what is stored.
      stacked: Whether to stack the layers of the decoder, leaf by leaf, so that they
        are never all in memory twice. Layers that are not stored alike stay listed.

    Returns:
      The model.

    Raises:
      ImportError: If it is a GGUF file and the ``gguf`` package is not installed.
      ValueError: If there is no model, a file is missing, cut short or corrupt, the
        architecture is unknown or needs what is not computed here, or tensors are
        missing, unknown or misshapen (all are named).
    """
    place = locate(folder)
    model = (_from_folder if place.is_dir() else _from_gguf)(place, dtype)
    if stacked:
        with contextlib.suppress(ValueError):  # layers that are not stored alike
            stack_layers_in_place(model.params["decoder"])
    return model


def locate(folder: str | os.PathLike[str]) -> pathlib.Path:
    """What `load` reads: the folder itself, or the GGUF file.

    Args:
      folder: As for `load`.

    Returns:
      A folder with ``config.json``, or the path of a GGUF file.

    Raises:
      ValueError: If there is no folder, or neither or several files in it.

    Examples:
      >>> locate("model.gguf").name  # opened by `load`, which tells if it is not there
      'model.gguf'
    """
    place = pathlib.Path(folder)
    if place.suffix == ".gguf" and not place.is_dir():
        return place
    if not place.is_dir():
        raise ValueError(f"there is no folder {place}")
    if (place / CONFIG_FILE).is_file():
        return place
    files = sorted(place.glob("*.gguf"))
    if len(files) != 1:
        names = ", ".join(f.name for f in files) or "none"
        raise ValueError(
            f"{place} must hold {CONFIG_FILE}, or one .gguf file; it has {names}"
        )
    return files[0]


def renamer(architecture: Any, *, tied: bool) -> Callable[[str], str | None]:
    """What the tensor of a name in a file is called in the architecture's table.

    Args:
      architecture: The module of the architecture.
      tied: Whether the output matrix is that of the embedding; files may hold it all
        the same, and it has no place then.

    Returns:
      ``rename(name)``: the name in the table, or ``None``.

    Examples:
      >>> rename = renamer(architecture("llama"), tied=True)
      >>> rename("model.norm.weight"), rename("lm_head.weight")
      ('model.norm.weight', None)
    """

    def rename(name: str) -> str | None:
        drop = tied and name.endswith("lm_head.weight")
        return None if drop else architecture.rename(name)

    return rename


def _from_folder(folder: pathlib.Path, dtype: Any) -> Model:
    config = read_json(folder / CONFIG_FILE)
    kind = config.get("model_type")
    architecture(kind)  # before any tensor file is opened
    tokenizer, notes = _tokenizer(folder)
    rest: dict[str, Any] = {"tokenizer": tokenizer, "chat": chat_format(folder)}
    if "quantization_config" in config:
        checkpoint = read_quantized(folder)
        rest["activation_bits"] = checkpoint.activation_bits
        notes += checkpoint.notes
    else:
        checkpoint = read_checkpoint(folder)
    generation = folder / "generation_config.json"
    return _model(
        str(kind),
        checkpoint.config,
        checkpoint.tensors,
        dtype,
        folder=folder,
        stop_tokens=_stop_tokens(
            *([read_json(generation)] if generation.is_file() else []),
            checkpoint.config,
            checkpoint.config.get("text_config") or {},
        ),
        notes=notes,
        **rest,
    )


def _from_gguf(path: pathlib.Path, dtype: Any) -> Model:
    config, tensors, fields = read_gguf(path)
    architecture("llama").config_from_json(config)  # before the tokenizer is made
    notes: tuple[str, ...] = ()
    try:
        tokenizer = gguf_tokenizer(fields)
    except (ImportError, ValueError) as error:
        tokenizer, notes = None, (f"no tokenizer: {error}",)
    return _model(
        "llama",
        config,
        tensors,
        dtype,
        folder=path.parent,
        tokenizer=tokenizer,
        chat=gguf_chat_format(fields),
        stop_tokens=_stop_tokens(config),  # what stands beside it may be another's
        notes=notes,
    )


def _model(
    kind: str,
    given: Mapping[str, Any],
    tensors: Mapping[str, Any],
    dtype: Any,
    **rest: Any,
) -> Model:
    module = architecture(kind)
    try:
        config = module.config_from_json(given)
        rename = renamer(module, tied=config.decoder.tied)
        params = to_params(
            module.tensor_table(config), renamed(tensors, rename), dtype=dtype
        )
    except ValueError as error:
        raise ValueError(f"{rest['folder']}: {error}") from error

    def apply(params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        return module.apply(params, inputs, config=config)

    def embed(params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        return module.embed(params, inputs, config=config)

    return Model(
        architecture=kind,
        config=config,
        params=params,
        apply=apply,
        embed=embed,
        **rest,
    )


def _tokenizer(folder: pathlib.Path) -> tuple[Any, tuple[str, ...]]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None, (f"no tokenizer: there is no {file.name}",)
    try:
        tokenizers = require("tokenizers")
    except ImportError as error:
        return None, (f"no tokenizer: {error}",)
    try:
        return tokenizers.Tokenizer.from_file(str(file)), ()
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"{file} is no tokenizer: {error}") from error


def _stop_tokens(*places: Mapping[str, Any]) -> tuple[int, ...]:
    """Stop tokens, by the first place that names one."""
    for place in places:
        stops = place.get("eos_token_id")
        if stops is not None:
            return tuple(stops) if isinstance(stops, list) else (stops,)
    return ()
