"""The tokenizer that a GGUF file holds, made for the `tokenizers` library."""

from collections.abc import Mapping
from typing import Any

from jeff.models.chat.format import CHATML, ChatFormat
from jeff.models.gguf.file import require

__all__ = ["gguf_chat_format", "gguf_tokenizer"]

_CONTROL, _USER = 3, 4  # token types that are never merged from parts

_SPECIAL = {  # key of the file: name in templates
    "bos": "bos_token",
    "eos": "eos_token",
    "padding": "pad_token",
    "unknown": "unk_token",
}


def gguf_chat_format(fields: Mapping[str, Any]) -> ChatFormat:
    """How chats become text, from the keys of a GGUF file.

    Args:
      fields: As `read_gguf` gives them.

    Returns:
      The file's template, else ChatML, with the texts of its special tokens.

    Raises:
      ValueError: If the template is no Jinja program, or a special token is none of the
        file's tokens.

    Examples:
      >>> gguf_chat_format({}).variables
      ()
    """
    tokens = _value(fields, "tokenizer.ggml.tokens") or []
    variables = {}
    for key, name in _SPECIAL.items():
        token = _value(fields, f"tokenizer.ggml.{key}_token_id")
        if token is None or not tokens:
            continue
        if token >= len(tokens):
            raise ValueError(
                f"tokenizer.ggml.{key}_token_id is {token}, there are {len(tokens)} "
                "tokens"
            )
        variables[name] = tokens[token]
    return ChatFormat(
        template=_value(fields, "tokenizer.chat_template") or CHATML,
        variables=tuple(sorted(variables.items())),
    )


def gguf_tokenizer(fields: Mapping[str, Any]) -> Any:
    """A byte-level BPE tokenizer from the keys of a GGUF file.

    Args:
      fields: As `read_gguf` gives them.

    Returns:
      A ``tokenizers.Tokenizer``; control tokens are special, so they are recognized in
      text and left out when decoding.

    Raises:
      ImportError: If the ``tokenizers`` package is not installed.
      ValueError: If the file holds no tokenizer, or another kind than byte-level BPE
        as of GPT-2 or SmolLM.
    """
    tokenizers = require("tokenizers")

    def value(key: str) -> Any:
        return _value(fields, f"tokenizer.ggml.{key}")

    tokens, merges = value("tokens"), value("merges")
    if value("model") != "gpt2" or tokens is None or merges is None:
        raise ValueError(
            f"tokenizer.ggml.model must be 'gpt2', with tokens and merges, "
            f"got {value('model')!r}"
        )
    split = tokenizers.pre_tokenizers
    bytes_ = split.ByteLevel(add_prefix_space=False)
    known = {
        "gpt-2": bytes_,
        "smollm": split.Sequence([split.Digits(individual_digits=True), bytes_]),
    }
    if value("pre") not in known:
        raise ValueError(
            f"tokenizer.ggml.pre must be one of {', '.join(known)}, "
            f"got {value('pre')!r}"
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    try:
        model = tokenizers.models.BPE(vocabulary, pairs)
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"tokenizer.ggml.merges do not fit: {error}") from error
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = known[value("pre")]
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    types = value("token_type") or [0] * len(tokens)
    for kind, add in (
        (_CONTROL, tokenizer.add_special_tokens),
        (_USER, tokenizer.add_tokens),
    ):
        add([t for t, of in zip(tokens, types, strict=True) if of == kind])
    return tokenizer


def _value(fields: Mapping[str, Any], key: str) -> Any:
    return fields[key].contents() if key in fields else None
