"""PyTorchFI and MRFI in a process of their own, asked for one timed run at a time.

Started by `faults_cases.peers`, maybe with another Python: it needs torch, pytorchfi
and MRFI, and not jeff. Weights and pictures come in an ``.npz`` file. A line of JSON is
read and one is answered; idle, the process waits and takes no core.

Every case is a function that makes one *new random fault* (or set of faults) and runs
the network with it. It is offered in several forms (memory format, number of threads);
the one that is fastest in a trial run is taken.
"""

import contextlib
import copy
import importlib.metadata
import io
import itertools
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

try:
    import torch_resnet
except ImportError:  # imported as a module of the folder
    from faults_cases import torch_resnet

Run = Callable[[], Any]

_MRFI = """
faultinject:
  - type: activation_out
    quantization:
      method: SymmericQuantization
      dynamic_range: auto
      bit_width: 8
      layerwise: True
    selector:
      method: RandomPositionByRate
      poisson: True
      rate: {rate}
    error_mode:
      method: IntRandomBitFlip
      bit_width: 8
    module_type: [Conv2d, Linear]
"""
_MRFI_CODE = """
faultinject:
  - type: weight
    name: [weight]
    quantization:
      method: SymmericQuantization
      dynamic_range: auto
      bit_width: 8
      layerwise: True
    selector:
      method: FixPosition
      position: {place}
    error_mode:
      method: IntFixedBitFlip
      bit_width: 8
      bit: {bit}
    module_fullname: [{layer}]
"""
_FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


class Network:
    """A network and pictures in one memory format."""

    def __init__(self, arrays, images, *, form: str, norm: bool, padding: str):
        """Builds it."""
        self._form = _FORMATS[form]
        made = torch_resnet.build(arrays, norm=norm, padding=padding)
        self.net = made.to(memory_format=self._form)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def batch(self, size: int) -> torch.Tensor:
        """The first pictures."""
        return self.images[:size].contiguous(memory_format=self._form)


def plain(network: Network, batch: int) -> Run:
    """The network without faults."""
    x = network.batch(batch)
    return lambda: network.net(x)


def pytorchfi_cases(network: Network, batch: int) -> dict[str, Run]:
    """What PyTorchFI's documentation shows: declare a random fault, run the model."""
    from pytorchfi import neuron_error_models, weight_error_models
    from pytorchfi.core import fault_injection

    x, shape = network.batch(batch), [3, *network.images.shape[2:]]
    injector = fault_injection(network.net, batch, input_shape=shape)
    flipper = neuron_error_models.single_bit_flip_func(
        network.net, batch, input_shape=shape, bits=8
    )
    ranges = _ranges(network.net, x)
    last = injector.get_total_layers() - 1
    return {
        "weight": lambda: weight_error_models.random_weight_inj(injector)(x),
        "last_weight": lambda: weight_error_models.random_weight_inj(injector, last)(x),
        "neuron": lambda: neuron_error_models.random_neuron_inj_batched(injector)(x),
        "flip": lambda: neuron_error_models.random_neuron_single_bit_inj_batched(
            flipper, ranges
        )(x),
    }


def mrfi_flips(network: Network, batch: int, rate: float) -> Run:
    """MRFI with int8 activations, of which a share `rate` gets a random bit flipped."""
    from mrfi import MRFI, EasyConfig

    config = EasyConfig.load_string(_MRFI.format(rate=rate))
    injected = MRFI(copy.deepcopy(network.net), config)
    x = network.batch(batch)
    return lambda: injected(x)


def _ranges(net: nn.Module, x: torch.Tensor) -> list[float]:
    """Largest magnitude of every convolution's output, in the order of PyTorchFI."""
    found = []
    hooks = [
        layer.register_forward_hook(
            lambda _, __, y: found.append(float(y.abs().max()) or 1.0)
        )
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return found


def offered(arrays, images, batch: int, rate: float, padding: str) -> tuple[dict, dict]:
    """Cases by name with their forms, and why others are missing."""
    forms = {
        (form, norm): Network(arrays, images, form=form, norm=norm, padding=padding)
        for form, norm in itertools.product(_FORMATS, (False, True))
    }
    cases: dict[str, dict[str, Run]] = {}
    missing: dict[str, str] = {}

    def add(name: str, form: str, run: Run) -> None:
        cases.setdefault(name, {})[form] = run

    for (form, norm), network in forms.items():
        suffix = ".norm" if norm else ""
        for size in (1, batch):
            add(f"torch.b{size}{suffix}", form, plain(network, size))
            try:
                for name, run in pytorchfi_cases(network, size).items():
                    add(f"pytorchfi.{name}.b{size}{suffix}", form, run)
            except ImportError as error:
                missing["pytorchfi"] = str(error)
        if form == "nchw":  # MRFI flattens activations, which needs this format
            try:
                run = mrfi_flips(network, batch, rate)
                add(f"mrfi.flips.b{batch}{suffix}", form, run)
            except ImportError as error:
                missing["mrfi"] = str(error)
    return cases, missing


def fastest(forms: dict[str, Run], threads: list[int]) -> tuple[str, int]:
    """The form and the number of threads with the shortest median of five runs."""
    seconds = {}
    for name, count in itertools.product(forms, threads):
        torch.set_num_threads(count)
        forms[name]()
        runs = [_timed(forms[name]) for _ in range(5)]
        seconds[name, count] = statistics.median(runs)
    return min(seconds, key=seconds.get)


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def versions() -> dict[str, str]:
    """Versions of torch and of the peers that are there."""
    found = {}
    for name in ("torch", "pytorchfi", "MRFI"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name.lower()] = importlib.metadata.version(name)
    return found


def main() -> None:
    """Answers requests until the input ends."""
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, io.StringIO()  # the peers print
    settings = json.loads(sys.argv[1])
    with np.load(settings["file"]) as file:
        content = dict(file)
    images = content.pop("images")
    random.seed(settings["seed"])
    torch.manual_seed(settings["seed"])
    torch.set_grad_enabled(False)
    batch, rate, padding = (settings[name] for name in ("batch", "rate", "padding"))
    cases, missing = offered(content, images, batch, rate, padding)
    chosen: dict[str, tuple[str, int]] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "start":
            torch.set_num_threads(1)
            nets = [
                Network(content, images, form="nchw", norm=norm, padding=padding)
                for norm in (False, True)
            ]
            return {
                "cases": sorted(cases),
                "missing": missing,
                "versions": versions(),
                "logits": [own.net(own.batch(batch)).tolist() for own in nets],
            }
        if request["do"] == "fault":
            return {"logits": same_fault(content, images, **request["fault"])}
        name = request["case"]
        if name not in chosen:
            chosen[name] = fastest(cases[name], settings["threads"])
        form, threads = chosen[name]
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for _ in range(request["runs"]):
            cases[name][form]()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "form": form, "threads": threads}

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def same_fault(arrays, images, *, layer: int, place: list[int], value: float) -> list:
    """Logits of PyTorchFI with one weight of a convolution set to a value."""
    from pytorchfi.core import fault_injection

    net = torch_resnet.build(arrays)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    injector = fault_injection(net, len(x), input_shape=[3, *x.shape[2:]])
    k, c, h, w = place
    faulty = injector.declare_weight_fi(
        layer_num=[layer], k=[k], dim1=[c], dim2=[h], dim3=[w], value=[value]
    )
    return faulty(x).tolist()


def same_flip(arrays, images, *, layer: int, place: list[int], bit: int) -> list:
    """Logits of PyTorchFI with one bit of one picture's 8-bit feature flipped.

    The place is ``[picture, channel, row, column]``; PyTorchFI would draw the bit.
    """
    from pytorchfi import neuron_error_models

    class Flipped(neuron_error_models.single_bit_flip_func):
        def _flip_bit_signed(self, value, largest, _):
            return super()._flip_bit_signed(value, largest, bit)

    net = torch_resnet.build(arrays)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        ranges = _ranges(net, x)
        injector = Flipped(net, len(x), input_shape=[3, *x.shape[2:]], bits=8)
        injector.set_conv_max(ranges)
        picture, channel, row, column = ([i] for i in place)
        faulty = injector.declare_neuron_fi(
            batch=picture, layer_num=[layer], dim1=channel, dim2=row, dim3=column,
            function=injector.single_bit_flip_signed_across_batch,
        )  # fmt: skip
        return faulty(x).tolist()


def same_code(arrays, images, *, layer: str, place: int, bit: int) -> list:
    """Logits of MRFI with a kernel in 8 bits, of which one bit of one code is flipped.

    `place` counts the kernel's entries in torch's order, ``[out, in, row, column]``.
    """
    from mrfi import MRFI, EasyConfig

    config = _MRFI_CODE.format(layer=layer, place=place, bit=bit)
    injected = MRFI(torch_resnet.build(arrays), EasyConfig.load_string(config))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        return injected(x).tolist()


if __name__ == "__main__":
    main()
