"""The two models of the effect study, each with its calibration data and its judge."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smollm2_vlm as vlm

from jeff import program
from jeff.data import embedded
from jeff.evaluate import NoProgress
from jeff.mbq import Batch, GroupSpec
from jeff.mbq.study import data as study_data
from jeff.mbq.study.study import answer_loss
from jeff.models import pretrained

__all__ = ["LAYERS", "Judgement", "Subject", "embedded_subject", "smollm2_subject"]

LAYERS = 6  # of SmolLM2, the first ones, are quantized
TEXT_SLOTS = 128


class Judgement(NamedTuple):
    """What a model did on the held-out data.

    Attributes:
      losses: float ``[questions]``, negative log-likelihood of each answer in nats.
      right: bool ``[questions]``.
      text: float ``[texts]``, mean negative log-likelihood of a token of each text, in
        nats; empty if there is no text.
    """

    losses: np.ndarray
    right: np.ndarray
    text: np.ndarray


class Subject(NamedTuple):
    """A model under study.

    Attributes:
      apply: ``apply(params, *inputs)``.
      params: Full precision.
      where: Which sites are quantized; ``None`` for all of the blocks.
      draw: Calibration batches of a seed.
      loss: As `jeff.mbq.mbq` takes it.
      images: int ``[questions]``, the image that each held-out question is about.
      judge: Judges parameters under rules.
      without_output: Balance groups without the attention's output matrix.
      notes: Sentences for the record.
    """

    apply: Callable[..., Any]
    params: Any
    where: Callable[[program.Site], bool] | None
    draw: Callable[[int], list[Batch]]
    loss: Callable[[Any, Any], jax.Array]
    images: np.ndarray
    judge: Callable[[Any, tuple[Any, ...]], Judgement]
    without_output: tuple[GroupSpec, ...]
    notes: tuple[str, ...]


def embedded_subject(*, questions: int, images: int) -> Subject:
    """The model in the wheel, judged on all questions about the first test images.

    Args:
      questions: Calibration questions of a seed.
      images: Held-out images.
    """
    data = embedded.load_vqa()
    apply, params = program.functional(pretrained.load_tiny_vlm())
    calibration, held_out = study_data.parts(data, NoProgress())
    rows = np.flatnonzero(data.test.image_index < images)
    held_out = study_data.Questions(*(x[rows] for x in held_out))

    def draw(seed: int) -> list[Batch]:
        rng = np.random.default_rng([0, seed])
        return [study_data.batch(calibration.draw(rng, questions))]

    def judge(params, rules) -> Judgement:
        answer = _jitted(apply, rules, _answers)
        parts = [
            answer(params, x.vision, x.tokens, x.answers) for x in _chunks(held_out, 64)
        ]
        losses, right = _joined(parts, len(rows))
        return Judgement(losses, right, np.zeros(0))

    return Subject(
        apply=apply,
        params=params,
        where=None,
        draw=draw,
        loss=lambda scores, answers: answer_loss(scores, answers).sum(),
        images=data.test.image_index[rows],
        judge=judge,
        without_output=(),
        notes=(
            f"embedded: calibration on {questions} questions a seed, judged on the "
            f"{len(rows)} questions about the first {images} embedded test images",
        ),
    )


def smollm2_subject(
    *, questions: int, held_out: int, texts: int, corpus: pathlib.Path
) -> Subject:
    """SmolLM2 behind EfficientNet-Lite0 and the trained projector.

    Args:
      questions: Calibration questions of a seed, about the first 150 training images.
      held_out: Questions about the first 300 test images, the same for all seeds.
      texts: Texts of `TEXT_SLOTS` tokens.
      corpus: Cranfield's ``cran.all.1400``; without it no text is read.
    """
    frozen, config, tokenizer = vlm.load_smollm2()
    params = {"decoder": frozen, "projector": vlm.load_projector()}
    params = vlm.split(params, LAYERS)
    parts = {}
    for part, images in (("train", 150), ("test", 300)):
        chats, pictures = vlm.load_chats(tokenizer, part, images)
        parts[part] = chats, vlm.features(part, pictures)
    chats, seen = parts["test"]
    rows = np.random.default_rng(0).permutation(len(chats.image))[:held_out]
    asked = chats.take(rows)
    tokens = _text_tokens(tokenizer, corpus, texts)

    def apply(params, vision, tokens, valid, slots):
        return vlm.apply(params, vision, tokens, valid, slots, config=config)

    def draw(seed: int) -> list[Batch]:
        chats, seen = parts["train"]
        rng = np.random.default_rng([1, seed])
        drawn = chats.take(rng.permutation(len(chats.image))[:questions])
        inputs = seen[drawn.image], drawn.tokens, drawn.valid, drawn.slots
        return [
            Batch(
                inputs=tuple(map(jnp.asarray, inputs)),
                masks=jax.tree.map(jnp.asarray, drawn.masks()),
                targets=jnp.asarray(drawn.answers),
            )
        ]

    def loss(scores, answers):
        count = (answers >= 0).sum(-1)
        return (vlm.answer_losses(scores, answers) / count).sum()

    def read(params, tokens):
        return vlm.text_logits(params, tokens, config=config)

    def judge(params, rules) -> Judgement:
        answer = _jitted(apply, rules, _said)
        parts = [
            answer(params, seen[c.image], c.tokens, c.valid, c.slots, c.answers)
            for c in _chunks(asked, 16)
        ]
        losses, right = _joined(parts, len(rows))
        likelihood = _jitted(read, rules, _next_tokens)
        text = [likelihood(params, chunk, chunk) for (chunk,) in _chunks((tokens,), 4)]
        return Judgement(losses, right, np.concatenate([np.zeros(0), *text])[:texts])

    note = (
        f"text: {len(tokens)} Cranfield abstracts, the first {TEXT_SLOTS} tokens"
        if len(tokens)
        else "no text: the Cranfield collection is not there"
    )
    return Subject(
        apply=apply,
        params=params,
        where=lambda site: site.name.startswith("decoder.layers."),
        draw=draw,
        loss=loss,
        images=asked.image,
        judge=judge,
        without_output=_without_output(),
        notes=(
            f"smollm2: its first {LAYERS} layers are quantized; calibration on "
            f"{questions} questions a seed, judged on {held_out} questions; {note}",
        ),
    )


def _without_output() -> tuple[GroupSpec, ...]:
    """The groups of a Llama layer that grouped-query attention has no part in."""
    at = "decoder.layers."
    inputs = tuple(f"{at}attention.{n}.kernel" for n in ("query", "key", "value"))
    gates = tuple(f"{at}mlp.{n}.kernel" for n in ("gate", "up"))
    return tuple(
        GroupSpec(sites=sites) for sites in (inputs, gates, (f"{at}mlp.down.kernel",))
    )


def _text_tokens(tokenizer: Any, corpus: pathlib.Path, count: int) -> np.ndarray:
    """The beginnings of the first abstracts that are long enough, int32."""
    if not corpus.exists():
        return np.zeros((0, TEXT_SLOTS), np.int32)
    found: list[list[int]] = []
    for document in corpus.read_text(encoding="utf-8").split("\n.I ")[0:]:
        ids = tokenizer.encode(" ".join(document.partition("\n.W\n")[2].split())).ids
        if len(ids) >= TEXT_SLOTS:
            found.append(ids[:TEXT_SLOTS])
        if len(found) == count:
            break
    return np.asarray(found, np.int32).reshape(-1, TEXT_SLOTS)


def _answers(scores, answers):
    return answer_loss(scores, answers), scores.argmax(-1) == answers


def _said(scores, answers):
    return vlm.answer_losses(scores, answers), vlm.is_right(scores, answers)


def _next_tokens(scores, tokens):
    log_p = jax.nn.log_softmax(scores[:, :-1])
    return -jnp.take_along_axis(log_p, tokens[:, 1:, None], -1)[..., 0].mean(-1)


_COMPILED: dict[Any, Any] = {}


def _jitted(apply, rules, measure):
    """The compiled program under rules, which of one program are all alike."""
    key = apply, measure, len(rules)
    if key not in _COMPILED:
        rewritten = program.rewrite(apply, *rules)

        def run(params, *inputs):
            *inputs, targets = inputs
            return measure(rewritten(params, *inputs), targets)

        _COMPILED[key] = jax.jit(run)
    return _COMPILED[key]


def _chunks(data: Any, size: int) -> Iterator[Any]:
    """Equal parts of a tuple of arrays; the last rows again where some are missing."""
    count = len(data[0])
    make = type(data)._make if hasattr(data, "_make") else tuple
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield make(x[rows] for x in data)


def _joined(parts, count: int) -> tuple[np.ndarray, np.ndarray]:
    losses, right = (np.concatenate(x)[:count] for x in zip(*parts, strict=True))
    return losses.astype(np.float64), right
