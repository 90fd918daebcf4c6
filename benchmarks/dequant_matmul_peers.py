"""Other people's products with packed matrices, for `dequant_matmul.py`; GPU only.

Each gets the codes, scales and zero points of jeff's matrices in its own layout, and is
timed as a CUDA graph of products that follow one another, weights rotated. Written
after the sources of humming-kernels 0.1.19 and conch-triton-kernels 1.3 and the
documentation of PyTorch; run on no GPU yet: a peer that fails is absent from the record
with its error, one that is wrong is not timed.
"""

import math

import jax.numpy as jnp
import numpy as np

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul.bench import Peer
from pallas_kernels.dequant_matmul.programs import Problem
from pallas_kernels.timing import Program

__all__ = ["PEERS"]

_WARM_UP = 3  # products before a graph is captured: libraries tune and compile in them


def _humming(problem: Problem) -> Program:
    """humming-kernels: any width, integer zero points packed along N."""
    import torch
    from humming import ops
    from humming.layer import HummingLayer

    bits, size, columns = _check(problem, (2, 3, 4, 8))

    def prepared(codes, scale, zero):
        layer = HummingLayer(
            shape_n=columns,
            shape_k=size,
            weight_config={
                "dtype": f"uint{bits}",
                "group_size": problem.group_size,
                "has_zero_point": True,
            },
            torch_dtype=torch.bfloat16,
        ).cuda()
        zeros = ops.pack_weight(zero.int().contiguous(), bits)  # [G, N * bits / 32]
        layer.load_from_tensors(
            {
                "weight": ops.pack_weight(codes.T.int().contiguous(), bits),
                "weight_scale": scale.T.contiguous(),
                "zero_point": zeros.T.contiguous(),
            }
        )
        layer.transform()
        return layer

    return _program(problem, prepared, lambda x, layer: layer(x))


def _torch_int4(problem: Problem) -> Program:
    """PyTorch's own W4 product: ``(code - 8) * scale + offset``."""
    import torch

    _check(problem, (4,))

    def prepared(codes, scale, zero):
        codes = codes.T.contiguous()
        pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
        offset = (8 - zero.float()) * scale.float()
        both = torch.stack([scale, offset.to(scale.dtype)], -1).contiguous()
        return packed, both

    def product(x, weights):
        packed, both = weights
        return torch.ops.aten._weight_int4pack_mm(x, packed, problem.group_size, both)

    return _program(problem, prepared, product)


def _conch(problem: Problem) -> Program:
    """conch-triton-kernels: widths that divide 32, packed in order along K."""
    import torch
    from conch.ops.quantization.gemm import mixed_precision_gemm

    bits, size, columns = _check(problem, (2, 4, 8))
    per_word = 32 // bits

    def prepared(codes, scale, zero):
        parts = codes.long().reshape(size // per_word, per_word, columns)
        shifts = bits * torch.arange(per_word, device="cuda")[None, :, None]
        words = (parts << shifts).sum(1)
        words = torch.where(words >= 2**31, words - 2**32, words).int()
        return words.contiguous(), scale, zero.to(scale.dtype)

    def product(x, weights):
        return mixed_precision_gemm(
            x, *weights, weight_size_bits=bits, weight_bias=0,
            group_size=problem.group_size,
        )  # fmt: skip

    return _program(problem, prepared, product)


PEERS = (
    Peer("humming", _humming),
    Peer("torch_int4", _torch_int4),
    Peer("conch", _conch),
)
"""Peers by their names in the record."""


def _check(problem: Problem, widths) -> tuple[int, int, int]:
    """Width, K and N, if the peer has that width."""
    case = problem.case
    if case.bits not in widths:
        raise NotImplementedError(f"has no {case.bits}-bit codes")
    return case.bits, case.size, case.columns


def _program(problem: Problem, prepared, product) -> Program:
    """A CUDA graph of products, each on the result of the one before."""
    import torch

    def tensor(a):
        if a.dtype == jnp.bfloat16:
            return torch.from_numpy(np.array(a, np.float32)).cuda().bfloat16()
        return torch.from_numpy(np.array(a)).cuda()

    def converted(packed, scale, zero):
        stride = layouts.default_stride(problem.case.size)
        codes = layouts.unpack(packed, bits=problem.case.bits, axis=0, stride=stride)
        return prepared(tensor(codes), tensor(scale), tensor(zero))

    sets = [converted(*arrays) for arrays in problem.sets]
    x = tensor(problem.x)
    size, turns = problem.case.size, math.ceil(problem.products / len(sets))

    def turn(x):
        for weights in sets:
            y = product(x, weights)
            x = (
                y[:, :size].contiguous()
                if y.shape[1] >= size
                else torch.cat([y, x[:, y.shape[1] :]], 1)
            )
        return x

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            turn(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        last = x
        for _ in range(turns):
            last = turn(last)

    def run():
        graph.replay()
        torch.cuda.synchronize()

    return Program(
        first=lambda: product(x, sets[0]).float().cpu().numpy(),
        run=run,
        products=turns * len(sets),
        sets=len(sets),
        nbytes=sum(a.nbytes for a in problem.sets[0]),
    )
