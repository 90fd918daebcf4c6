"""Values inside of a block, with side inputs and in a scan."""

import jax
import numpy as np
import pytest
from support import mbq_blocks

from jeff import program
from jeff.mbq.blocks.capture import Capture


@pytest.mark.parametrize("layout", ["unrolled", "scanned"])
def test_input_of_a_site(layout):
    params, apply = mbq_blocks.make_params(), mbq_blocks.gated()
    if layout == "scanned":
        params, apply = mbq_blocks.stack(params), mbq_blocks.scanned
    x = mbq_blocks.batches()[0].inputs[0]
    (stack,) = program.blocks(apply, params, x)
    down = next(n for n in stack.sites if n.endswith("down"))
    step = stack.piece.found.steps[down]
    capture = Capture(stack, [step.inputs[0], step.inputs[0]])
    state, sides = stack.enter(params, x)
    weights, side = stack.weights(params, 0), stack.side(sides, 0)
    got, again = capture(weights, state, side)
    p = mbq_blocks.make_params()["layers"][0]
    h = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * p["norm"]
    want = jax.nn.silu(h @ p["gate"]) * (h @ p["up"])
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)
    np.testing.assert_array_equal(got, again)
