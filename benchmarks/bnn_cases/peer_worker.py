"""bayesian-torch and blitz in a process of their own, asked for one thing at a time.

Started by `bnn_cases.peers`, maybe with another Python: it needs torch, bayesian-torch
and blitz-bayesian-pytorch, and not jeff. Weights and inputs come in an ``.npz`` file. A
line of JSON is read and one is answered; idle, the process waits and takes no core.

Voters are drawn as the READMEs of both show: a loop over forward passes, stacked.
Neither has another way. ``torch_lrt`` is what a user of plain torch would write by
hand: local reparameterisation over all voters at once, or over some at a time.
"""

import contextlib
import functools
import importlib.metadata
import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional

try:
    from peak import peak_growth
except ImportError:  # imported as a module of the folder
    from bnn_cases.peak import peak_growth

Voters = Callable[[torch.Tensor, int], torch.Tensor]
Layers = list[tuple[torch.Tensor, torch.Tensor]]

_SLOW = 0.3  # s, of a call that is not repeated to choose a form
_PACKAGES = ("torch", "bayesian-torch", "blitz-bayesian-pytorch")
_PRIOR = {
    "prior_mu": 0.0,
    "prior_sigma": 1.0,
    "posterior_mu_init": 0.0,
    "posterior_rho_init": -3.0,
    "moped_enable": False,
    "moped_delta": 0.5,
}


def rho(std: torch.Tensor) -> torch.Tensor:
    """What both libraries store: ``std = log(1 + exp(rho))``."""
    return torch.log(torch.expm1(std))


def bayesian_torch(layers: Layers, kind: str) -> nn.Module:
    """The network made Bayesian by ``dnn_to_bnn``, which also leaves out the KL."""
    from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn

    dense = [nn.Linear(w.shape[1], w.shape[0], bias=False) for w, _ in layers]
    net = _with_relu(dense)
    dnn_to_bnn(net, {**_PRIOR, "type": kind})
    for layer, (mean, std) in zip(net[::2], layers, strict=True):
        layer.mu_weight.data.copy_(mean)
        layer.rho_weight.data.copy_(rho(std))
    return net.eval()


def blitz(layers: Layers) -> nn.Module:
    """The network of ``BayesianLinear``, which computes its prior at every call."""
    from blitz.modules import BayesianLinear

    made = []
    for mean, std in layers:
        layer = BayesianLinear(mean.shape[1], mean.shape[0], bias=False)
        layer.weight_sampler.mu.data.copy_(mean)
        layer.weight_sampler.rho.data.copy_(rho(std))
        made.append(layer)
    return _with_relu(made).eval()


def stacked(net: nn.Module) -> Voters:
    """Voters by a loop over forward passes."""
    return lambda x, voters: torch.stack([net(x) for _ in range(voters)])


def local(layers: Layers, together: int | None) -> Voters:
    """Local reparameterisation by hand, some rows at a time."""
    squares = [(mean, std.square()) for mean, std in layers]

    def some(x: torch.Tensor, voters: int) -> torch.Tensor:
        h = x[None]
        for i, (mean, square) in enumerate(squares):
            h = h.relu() if i else h
            center = functional.linear(h, mean)
            spread = functional.linear(h.square(), square).sqrt()
            noise = torch.empty(voters, *center.shape[1:]).normal_()
            h = center + spread * noise
        return h

    def run(x: torch.Tensor, voters: int) -> torch.Tensor:
        size = voters if together is None else max(1, together // len(x))
        starts = range(0, voters, size)
        return torch.cat([some(x, min(size, voters - start)) for start in starts])

    return run


def offered(layers: Layers) -> tuple[dict[str, dict[str, Voters]], dict[str, str]]:
    """Contenders by name with their forms, and why others are missing."""
    made = {
        "bayesian_torch": lambda: bayesian_torch(layers, "Reparameterization"),
        "bayesian_torch_flipout": lambda: bayesian_torch(layers, "Flipout"),
        "blitz": lambda: blitz(layers),
    }
    found: dict[str, dict[str, Voters]] = {
        "torch_lrt": {"whole": local(layers, None), "in parts": local(layers, 256)}
    }
    missing = {}
    for name, make in made.items():
        try:
            found[name] = {"loop": stacked(make())}
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def injected(run: Voters, x: torch.Tensor, voters: int, file: str) -> list:
    """Outputs with the given noise where a contender would draw its own."""
    with np.load(file) as arrays:
        given = {
            kind: iter([arrays[f"{kind}.{i}"] for i in range(len(arrays.files))
                        if f"{kind}.{i}" in arrays])
            for kind in ("normal", "uniform")
        }  # fmt: skip

    def handing_out(kind: str):
        def fill(self: torch.Tensor, *_: Any) -> torch.Tensor:
            return self.copy_(torch.from_numpy(next(given[kind])))

        return mock.patch.object(torch.Tensor, f"{kind}_", fill)

    with handing_out("normal"), handing_out("uniform"):
        return run(x, voters).tolist()


def versions() -> dict[str, str]:
    """Versions of torch and of the peers that are there."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _with_relu(layers: list[nn.Module]) -> nn.Sequential:
    between = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*between[:-1])


def _fastest(forms: dict[str, Voters], x: torch.Tensor, voters: int) -> str:
    if len(forms) == 1:
        return next(iter(forms))
    seconds = {
        name: _typical(functools.partial(run, x, voters)) for name, run in forms.items()
    }
    return min(seconds, key=seconds.__getitem__)


def _typical(run: Callable[[], Any]) -> float:
    """Seconds of a call after the first, or of the first if it is slow."""
    for count in (1, 3):
        start = time.perf_counter()
        for _ in range(count):
            run()
        once = (time.perf_counter() - start) / count
        if once > _SLOW:
            break
    return once


def main() -> None:
    """Answers requests until the input ends."""
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, io.StringIO()  # the peers print
    settings = json.loads(sys.argv[1])
    with np.load(settings["file"]) as file:
        content = {name: torch.from_numpy(file[name]) for name in file.files}
    names = sorted(n.removesuffix(".mean") for n in content if n.endswith(".mean"))
    layers = [  # [outputs, inputs], as torch holds them
        (content[f"{n}.mean"].T.contiguous(), content[f"{n}.std"].T.contiguous())
        for n in names
    ]
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    torch.set_grad_enabled(False)
    contenders, missing = offered(layers)
    chosen: dict[tuple, str] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "start":
            return {"names": sorted(contenders), "missing": missing,
                    "versions": versions()}  # fmt: skip
        name, rows, voters = (request[n] for n in ("name", "rows", "voters"))
        forms, x = contenders[name], content["inputs"][:rows]
        if request["do"] == "inject":
            form = next(iter(forms))
            return {"outputs": injected(forms[form], x, voters, request["file"])}
        case = name, rows, voters
        if case not in chosen:
            chosen[case] = _fastest(forms, x, voters)
        run = forms[chosen[case]]
        if request["do"] == "peak":
            return peak_growth(lambda: run(x, voters))._asdict()
        start = time.perf_counter()
        for _ in range(request["runs"]):
            run(x, voters)
        return {"seconds": time.perf_counter() - start, "form": chosen[case]}

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
