"""Small convolutional programs written with nothing but JAX."""

import jax
import jax.numpy as jnp
from jax import lax

from support.case import Case, normal

__all__ = ["CASES"]


def _conv(x, w, *, layout="NHWC", **options):
    kernel = "OIHW" if layout == "NCHW" else "HWIO"
    return lax.conv_general_dilated(
        x, w, **options, dimension_numbers=(layout, kernel, layout)
    )


def conv_nhwc() -> Case:
    """A strided convolution, a pointwise one, and a dense head on the mean."""
    params = {
        "stem": normal(0, 3, 3, 3, 8),
        "point": normal(1, 1, 1, 8, 8),
        "head": normal(2, 8, 4),
    }

    def apply(params, x):
        x = _conv(x, params["stem"], window_strides=(2, 2), padding="SAME")
        x = _conv(
            jax.nn.relu(x), params["point"], window_strides=(1, 1), padding="VALID"
        )
        return jnp.mean(x, axis=(1, 2)) @ params["head"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 2, 8, 8, 3),),
        linears={"stem": 1, "point": 1, "head": 1},
        marks=frozenset({"conv"}),
    )


def conv_nchw() -> Case:
    """The same in the other layout, with kernels ``OIHW``."""
    params = {
        "stem": normal(0, 8, 3, 3, 3),
        "point": normal(1, 8, 8, 1, 1),
        "head": normal(2, 8, 4),
    }

    def apply(params, x):
        conv = lambda x, w, **o: _conv(x, w, layout="NCHW", **o)  # noqa: E731
        x = conv(x, params["stem"], window_strides=(2, 2), padding="SAME")
        x = conv(
            jax.nn.relu(x), params["point"], window_strides=(1, 1), padding="VALID"
        )
        return jnp.mean(x, axis=(2, 3)) @ params["head"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 2, 3, 8, 8),),
        linears={"stem": 1, "point": 1, "head": 1},
        marks=frozenset({"conv"}),
    )


def conv_grouped() -> Case:
    """A depthwise and a two-group convolution."""
    params = {"depthwise": normal(0, 3, 3, 1, 8), "grouped": normal(1, 3, 3, 4, 12)}

    def apply(params, x):
        x = _conv(
            x,
            params["depthwise"],
            window_strides=(1, 1),
            padding="SAME",
            feature_group_count=8,
        )
        return _conv(
            x,
            params["grouped"],
            window_strides=(1, 1),
            padding="SAME",
            feature_group_count=2,
        )

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 2, 6, 6, 8),),
        linears={"depthwise": 1, "grouped": 1},
        marks=frozenset({"conv", "grouped"}),
    )


def conv_dilated() -> Case:
    """A dilated, a transposed (input-dilated) and a one-dimensional convolution."""
    params = {
        "dilated": normal(0, 3, 3, 4, 4),
        "transposed": normal(1, 3, 3, 4, 4),
        "line": normal(2, 3, 4, 6),
    }

    def apply(params, x):
        x = _conv(
            x,
            params["dilated"],
            window_strides=(1, 1),
            padding="SAME",
            rhs_dilation=(2, 2),
        )
        x = lax.conv_transpose(x, params["transposed"], (2, 2), "SAME")
        line = jnp.mean(x, axis=1)  # [batch, width, channels]
        return lax.conv_general_dilated(
            line, params["line"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 2, 6, 6, 4),),
        linears={"dilated": 1, "transposed": 1, "line": 1},
        marks=frozenset({"conv"}),
    )


CASES = {
    f"plain_{fn.__name__}": fn
    for fn in (conv_nhwc, conv_nchw, conv_grouped, conv_dilated)
}
