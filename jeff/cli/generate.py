"""``jeff generate DIR``: the answer of a model, quantized or not."""

import functools
import json
import sys

from jeff.cli import arguments
from jeff.cli.errors import BadInput, RunFailed, nearest, one_line
from jeff.models import registry
from jeff.models.answer import answer, prompt_inputs
from jeff.models.generation import check_settings
from jeff.models.vision.pictures import read_picture

__all__ = ["generate"]

_DTYPES = ("float32", "bfloat16", "float16")


def generate(command: arguments.Generate) -> int:
    """Prints an answer, or with ``--json`` an object that holds it.

    Args:
      command: The arguments.

    Returns:
      Exit code 0.

    Raises:
      BadInput: If an argument does not fit, a picture cannot be read, or there is no
        model in the folder.
      RunFailed: If generating fails.
    """
    prompt = _prompt(command)
    settings = {
        "max_new_tokens": command.max_new_tokens,
        "temperature": command.temperature,
        "top_k": command.top_k,
        "top_p": command.top_p,
    }
    check = functools.partial(check_settings, **settings)
    if command.dtype not in _DTYPES:
        known = nearest(command.dtype, _DTYPES)
        raise BadInput(f"argument --dtype: unknown {command.dtype!r}; {known}")
    try:
        check()  # before a model is read, and again by what only the model tells
        pictures = [read_picture(file) for file in command.image]
        model = registry.load(command.folder, dtype=command.dtype, stacked=True)
        check(vocabulary=model.config.decoder.vocabulary)
        inputs = prompt_inputs(model, prompt, pictures, raw=command.raw)
    except (ImportError, OSError, ValueError) as error:
        raise BadInput(one_line(error)) from error
    for note in model.notes:
        print(f"jeff: {note}", file=sys.stderr)
    try:
        said = answer(model, inputs, **settings, seed=command.seed)
    except Exception as error:
        raise RunFailed(f"generate: {one_line(error)}") from error
    if command.json:
        record = {**said._asdict(), "tokens": list(said.tokens)}
        print(json.dumps(record, indent=2, ensure_ascii=False))
    elif said.text is None:
        print(*said.tokens)
    else:
        print(said.text)
    return 0


def _prompt(command: arguments.Generate) -> str | list[int]:
    """Words, or tokens."""
    words, tokens = command.prompt, command.tokens
    if tokens is None and words is not None:
        return words
    if tokens is None or words is not None:
        raise BadInput("argument --prompt: give either --prompt or --tokens")
    try:
        return [int(word) for word in tokens.replace(",", " ").split()]
    except ValueError:
        raise BadInput(
            f"argument --tokens: must be whole numbers, got {tokens!r}"
        ) from None
