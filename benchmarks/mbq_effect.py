"""What modality balancing buys: MBQ and its baselines on two trained models.

    python benchmarks/mbq_effect.py --out FOLDER --models embedded smollm2
    python benchmarks/mbq_effect.py --out FOLDER --only-report

The protocol is docs/mbq_effect.md. Every cell - model, setting, method, seed - is one
file in FOLDER, written when it is done, so a run that was stopped goes on where it was.
The record and the figures are made of what FOLDER holds once a setting is complete.
The large model needs the extra ``models``, pillow and the file that
`train_smollm2_projector.py` made.
"""

import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import mbq_effect_methods as methods
import mbq_effect_report as report
import numpy as np
import tyro
from mbq_effect_subjects import Subject, embedded_subject, smollm2_subject

from jeff import io

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run; the defaults are the protocol's."""

    out: pathlib.Path
    """Folder of the cells."""
    models: tuple[str, ...] = ("embedded", "smollm2")
    """Models to run."""
    settings: tuple[str, ...] = ()
    """Settings to run; all of a model's if empty."""
    first_seed: int = 0
    """First seed; dry runs use 1000 and more."""
    embedded_seeds: int = 20
    """Seeds of the embedded model."""
    smollm2_seeds: int = 3
    """Seeds of SmolLM2."""
    embedded_questions: int = 32
    """Calibration questions of a seed, embedded model."""
    embedded_images: int = 100
    """Held-out images of the embedded model; all their questions are asked."""
    smollm2_questions: int = 16
    """Calibration questions of a seed, SmolLM2."""
    smollm2_held_out: int = 96
    """Held-out questions of SmolLM2."""
    smollm2_texts: int = 6
    """Texts of 128 tokens that SmolLM2 reads."""
    corpus: pathlib.Path = ROOT.parent / "shared" / "data" / "cranfield"
    """Folder of the Cranfield collection."""
    only_report: bool = False
    """Run nothing; make the record of what there is."""
    record: pathlib.Path = ROOT / "benchmarks" / "records" / "mbq_effect.json"
    """File of the record."""
    figures: pathlib.Path = ROOT / "docs"
    """Folder of the figures."""

    def __post_init__(self) -> None:
        """Checks what would be told only after hours."""
        known = [s for plan in methods.PLANS.values() for s in plan]
        for name, values, allowed in (
            ("models", self.models, methods.PLANS),
            ("settings", self.settings, known),
        ):
            unknown = [value for value in values if value not in allowed]
            if unknown:
                raise ValueError(
                    f"{name} must be of {', '.join(allowed)}: {', '.join(unknown)}"
                )
        for name in ("embedded_seeds", "smollm2_seeds"):
            if getattr(self, name) < 2:
                raise ValueError(
                    f"{name} must be at least 2 for intervals: {getattr(self, name)}"
                )


def main(settings: Settings) -> None:
    """Runs the cells that are missing, then makes the record."""
    settings.out.mkdir(parents=True, exist_ok=True)
    if not settings.only_report:
        for model in settings.models:
            run_model(settings, model)
    report.write(settings)


def run_model(settings: Settings, model: str) -> None:
    """Runs the missing cells of a model."""
    missing = [
        c for c in cells(settings, model) if not cell_file(settings, *c).exists()
    ]
    if not missing:
        return
    subject = load(settings, model)
    full = settings.out / f"{model}.full.json"
    if not full.exists():
        write(full, judged(subject, subject.params, ()) | {"notes": subject.notes})
    for setting, method, seed in missing:
        file = cell_file(settings, setting, method, seed)
        start = time.monotonic()
        content = run_cell(subject, setting, method, seed)
        content["seconds"] = time.monotonic() - start
        write(file, content)
        print(
            f"{file.stem}: loss {np.mean(content['losses']):.4f}, "
            f"{np.mean(content['right']):.3f} right, {content['seconds']:.1f} s",
            flush=True,
        )


def load(settings: Settings, model: str) -> Subject:
    """A model with its data."""
    if model == "embedded":
        return embedded_subject(
            questions=settings.embedded_questions, images=settings.embedded_images
        )
    return smollm2_subject(
        questions=settings.smollm2_questions,
        held_out=settings.smollm2_held_out,
        texts=settings.smollm2_texts,
        corpus=settings.corpus / "cran.all.1400",
    )


def cells(settings: Settings, model: str) -> Iterator[tuple[str, str, int]]:
    """Setting, method and seed of every cell; rounding to nearest has no seed."""
    first = settings.first_seed
    seeds = range(first, first + getattr(settings, f"{model}_seeds"))
    for ablations in (False, True):
        for setting, names in methods.PLANS[model].items():
            if settings.settings and setting not in settings.settings:
                continue
            for seed, name in itertools.product(seeds, names):
                if (name in methods.ABLATIONS) == ablations and (
                    name != "rtn" or seed == first
                ):
                    yield f"{model}.{setting}", name, seed


def cell_file(settings: Settings, setting: str, method: str, seed: int) -> pathlib.Path:
    """The file of a cell."""
    return settings.out / f"{setting}.{method}.{seed}.json"


def run_cell(subject: Subject, setting: str, name: str, seed: int) -> dict[str, Any]:
    """Calibrates, quantizes and judges."""
    method = (methods.METHODS | methods.ABLATIONS)[name]
    config = methods.config(methods.SETTINGS[setting.partition(".")[2]], method)
    quantized = method.run(
        subject.apply,
        subject.params,
        subject.draw(seed),
        config,
        loss=subject.loss,
        where=subject.where,
        groups=subject.without_output if method.skips_output else None,
    )
    jax.block_until_ready(jax.tree.leaves(quantized.params))
    ratios = {
        site: {name: np.asarray(values).tolist() for name, values in by.items()}
        for site, by in quantized.report.sensitivities.items()
    }
    return judged(subject, quantized.params, quantized.rules) | {
        "bytes": quantized.report.stored_bytes,
        "notes": quantized.report.notes,
        "sensitivities": ratios,
    }


def judged(subject: Subject, params: Any, rules: tuple[Any, ...]) -> dict[str, Any]:
    """A judgement as JSON has it, with the image of every question."""
    given = subject.judge(params, rules)
    return {
        "losses": np.round(given.losses, 6).tolist(),
        "right": given.right.astype(int).tolist(),
        "text": np.round(given.text, 6).tolist(),
        "images": np.asarray(subject.images).tolist(),
    }


def write(file: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes a cell in one step."""
    io.write_atomically(file, json.dumps(content) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
