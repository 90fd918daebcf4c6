"""From a folder with a model to a folder with the same model, quantized.

The whole job: the model is read by its architecture, calibration data are made by its
own processor, blocks are quantized one by one and kept on the disk as soon as they are
finished, and files are written at the end. A job that was stopped goes on at the block
where it was, and its files are equal to the byte.
"""

import functools
import re
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import program, tree
from jeff.evaluate import NoProgress, Progress
from jeff.io import check_format, check_writable
from jeff.io.checkpoint import CONFIG_FILE
from jeff.mbq import methods
from jeff.mbq.blocks.finished import FinishedBlock
from jeff.mbq.blocks.store import BlockStore
from jeff.mbq.calibration.batches import Batch
from jeff.mbq.folder import model_files
from jeff.mbq.folder.data import Data, choose, read_data
from jeff.mbq.folder.entries import read_entries
from jeff.mbq.folder.picture_samples import samples_of
from jeff.mbq.folder.settings import (
    WORK_FOLDER,
    FolderSettings,
    check_begun,
    note_begun,
)
from jeff.mbq.report import Report
from jeff.models import registry
from jeff.models.chat.tokens import IGNORED
from jeff.quantize import quantize

__all__ = ["Prepared", "Result", "next_token_loss", "prepare", "quantize_folder"]

_METHODS = {
    "mbq": methods.mbq,
    "awq": methods.awq,
    "gptq": methods.gptq,
    "smoothquant": methods.smoothquant,
    "rtn": methods.rtn,
}


class Prepared(NamedTuple):
    """A job whose heavy work may begin.

    Attributes:
      settings: What is to be done.
      source: The model and what its files hold.
      data: What to calibrate on.
      blocks: How many blocks are to be quantized.
    """

    settings: FolderSettings
    source: model_files.Source
    data: Data
    blocks: int


class Result(NamedTuple):
    """What a job did.

    Attributes:
      files: Names of the files in the folder of the result.
      record: What ``quantize.json`` holds.
      report: The method's report.
    """

    files: tuple[str, ...]
    record: dict[str, Any]
    report: Report


def prepare(settings: FolderSettings) -> Prepared:
    """Reads model and calibration data, and checks all that can be checked before work.

    Args:
      settings: What is to be done.

    Returns:
      What `quantize_folder` goes on with.

    Raises:
      ValueError: If `settings.out` holds a finished model that may not be replaced, or
        a job that was begun with other settings; there is no model, it is quantized
        already or does not fit its architecture; calibration data are missing,
        malformed, or have no token of an image or of an answer where the method needs
        them; `settings.where` matches nothing; a group size does not divide; or the
        format cannot hold a weight. Files, lines and tensors are named.
    """
    if (settings.out / CONFIG_FILE).is_file() and not settings.overwrite:
        raise ValueError(
            f"{settings.out} holds a finished model; say overwrite to replace it"
        )
    check_begun(settings)
    entries = choose(read_entries(settings.calibration), settings)
    source = model_files.open_source(settings.source, jnp.dtype(settings.dtype))
    data = read_data(entries, samples_of(source.model), settings)
    blocks, leaves = _found(source.model, data.batches[0], settings)
    names = {row.path: row.name for row in source.table}
    specs = {}
    for path, part in leaves.items():
        leaf = tree.get(source.model.params, path)
        make = functools.partial(
            quantize,
            config=settings.config.weights,
            contract_axes=part.contract_axes,
            stack_axes=part.stack_axes,
        )
        try:
            spec = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            specs[names[path]] = jax.eval_shape(make, spec)
        except ValueError as error:
            raise ValueError(f"layer {path!r}: {error}") from None
    check_format(
        settings.format, specs, activation_bits=settings.config.activation_bits
    )
    return Prepared(settings, source, data, blocks)


def quantize_folder(
    settings: "FolderSettings | Prepared", progress: Progress | None = None
) -> Result:
    """Quantizes a model from folder to folder.

    Finished blocks are kept in `WORK_FOLDER` under `FolderSettings.out` and removed at
    the end. ``config.json`` is written last: a folder that has it is finished.

    The model is in memory once, in `FolderSettings.dtype`, until its last block is
    quantized, beside the states of all samples between two blocks and what is
    quantized so far. To write files, the leaves that changed are enough.

    Args:
      settings: What is to be done, or what `prepare` made of it; that serves one call,
        for its params are let go before files are written.
      progress: Told about blocks.

    Returns:
      What was done.

    Raises:
      ValueError: As `prepare` and the methods of `jeff.mbq`.
      OSError: If `FolderSettings.out` cannot be written to.

    Examples:
      ``jeff quantize`` is this function::

        config = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=128))
        settings = FolderSettings(
            source="Qwen2-VL-7B-Instruct", calibration="pairs", out="w3", config=config
        )
        quantize_folder(settings)
    """
    job = settings if isinstance(settings, Prepared) else prepare(settings)
    told = NoProgress() if progress is None else progress
    settings, model = job.settings, job.source.model
    check_writable(settings.out)
    work = settings.out / WORK_FOLDER
    model_files.remove_stale(settings.out, work)
    note_begun(settings)
    told.stage("quantize blocks", job.blocks)
    quantized = _METHODS[settings.method](
        model.apply,
        model.params,
        job.data.batches,
        settings.config,
        loss=next_token_loss,
        where=_where(settings),
        store=_Counted(work, told),
    )
    report = quantized.report
    leaves = model_files.changed(job.source, quantized.params)
    del quantized
    model.params.clear()
    told.stage("write files", 1)
    record = model_files.record(settings, job, report)
    files = model_files.write(settings, job.source, leaves, record)
    shutil.rmtree(work, ignore_errors=True)
    told.advance()
    return Result(files, record, report)


def next_token_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sum over samples of the mean cross entropy of a sample's answer tokens.

    Args:
      logits: float ``[B, N, vocabulary]``.
      labels: int ``[B, N]``; a token where it stands, -100 outside of the answer.

    Returns:
      float32 scalar.

    Examples:
      >>> logits = jnp.zeros((1, 3, 4))
      >>> float(next_token_loss(logits, jnp.array([[-100, -100, 2]])))  # log 4
      1.3862943649291992
    """
    labels = labels[:, 1:]
    answer = labels != IGNORED
    scores = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
    index = jnp.where(answer, labels, 0)[..., None]
    losses = -jnp.take_along_axis(scores, index, axis=-1)[..., 0]
    count = jnp.maximum(answer.sum(axis=1), 1).astype(jnp.float32)
    return (jnp.where(answer, losses, 0.0).sum(axis=1) / count).sum()


class _Counted(BlockStore):
    """A store that tells about its blocks."""

    def __init__(self, folder, progress: Progress):
        super().__init__(folder / "blocks")
        self._progress = progress

    def load(self, *args) -> FinishedBlock:
        """A block that is there."""
        finished = super().load(*args)
        self._progress.advance()
        return finished

    def save(self, stack: int, block: int, finished: FinishedBlock) -> None:
        """Keeps a block."""
        super().save(stack, block, finished)
        self._progress.advance()


def _where(settings: FolderSettings):
    pattern = re.compile(settings.where)
    return lambda site: pattern.search(site.name) is not None


def _found(model: registry.Model, batch: Batch, settings: FolderSettings):
    """How many blocks are to be quantized, and which leaves."""
    wanted = _where(settings)
    leaves, count = {}, 0
    for stack in program.blocks(model.apply, model.params, *batch.inputs):
        for names in stack.names:
            sites = [stack.piece.found.sites.named(name) for name in names.values()]
            chosen = [
                s for s in sites if s.kind == "dot" and len(s.parts) == 1 and wanted(s)
            ]
            leaves |= {site.leaf: site.parts[0] for site in chosen}
            count += bool(chosen)
    if not leaves:
        raise ValueError(
            f"where={settings.where!r} matches no product of a block; such as "
            f"{', '.join(_examples(model, batch))} would"
        )
    return count, leaves


def _examples(model: registry.Model, batch: Batch) -> list[str]:
    stacks = program.blocks(model.apply, model.params, *batch.inputs)
    return [next(iter(stack.names[0].values())) for stack in stacks]
