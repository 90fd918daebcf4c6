"""Settings are checked when they are made, and hash."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jeff.quantize import affine_parameters, fake_quant, one_sided_groups, quantize
from jeff.quantize.config import QuantConfig


def test_is_a_static_argument():
    a, b = QuantConfig(bits=3, group_size=64), QuantConfig(bits=3, group_size=64)
    assert hash(a) == hash(b) and a == b
    assert a != QuantConfig(bits=3)


def test_granularity():
    assert QuantConfig(bits=3).granularity == "channel"
    assert QuantConfig(bits=3, group_size=64).granularity == "group"
    assert QuantConfig(bits=3, per_tensor=True).granularity == "tensor"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 5}, "bits must be one of .* got 5"),
        ({"bits": 4, "group_size": 0}, "group_size must be positive, got 0"),
        ({"bits": 4, "group_size": 8, "per_tensor": True}, "group_size=8"),
        ({"bits": 4, "zero_point": "none"}, "or 'int_incl_zero', got 'none'"),
        ({"bits": 4, "symmetric": True, "zero_point": "float"}, "'float'"),
        ({"bits": 4, "scale_dtype": "int8"}, "or 'bfloat16', got 'int8'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        QuantConfig(**fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bits", 4.0, "bits must be an integer, got 4.0"),
        ("bits", "4", "bits must be an integer, got '4'"),
        ("bits", True, "bits must be an integer, got True"),
        ("bits", None, "bits must be an integer, got None"),
        ("group_size", "8", "group_size must be an integer, got '8'"),
        ("group_size", 8.0, "group_size must be an integer, got 8.0"),
        ("per_tensor", 1, "per_tensor must be True or False, got 1"),
        ("symmetric", "yes", "symmetric must be True or False, got 'yes'"),
        ("zero_point", 0, "zero_point must be 'int', 'float' or 'int_incl_zero', got"),
        ("scale_dtype", np.dtype("float16"), "got dtype('float16')"),
        ("scale_dtype", np.float16, "got <class 'numpy.float16'>"),
    ],
)
def test_fields_of_another_type_are_named(field, value, message):
    with pytest.raises(TypeError, match=re.escape(message)) as info:
        QuantConfig(**{"bits": 4, field: value})
    assert str(info.value).startswith(field) and "\n" not in str(info.value)


def test_numpy_integers_become_plain_ones():
    """So that equal settings print alike and compile once."""
    config = QuantConfig(bits=np.int64(3), group_size=np.int32(64))
    assert type(config.bits) is type(config.group_size) is int
    assert repr(config) == repr(QuantConfig(bits=3, group_size=64))


@pytest.mark.parametrize("given", [4, {"bits": 4}, None, "int4", QuantConfig])
@pytest.mark.parametrize(
    "function",
    [quantize, fake_quant, affine_parameters, one_sided_groups],
    ids=lambda f: f.__name__,
)
def test_what_is_no_config_is_said(function, given):
    message = f"config must be a QuantConfig, got {given!r}"
    with pytest.raises(TypeError, match=re.escape(message)):
        function(np.ones((8, 2), np.float32), given)


@pytest.mark.parametrize("zero_point", ["int", "int_incl_zero", "float"])
def test_only_the_default_clips_groups_of_one_sign(zero_point):
    """Into [0, max - min], as the docstring says; the other two reach every weight."""
    w = jnp.asarray(np.random.default_rng(0).uniform(1.0, 1.5, (64, 3)), jnp.float32)
    for sign in (1, -1):
        config = QuantConfig(bits=4, group_size=32, zero_point=zero_point)
        decoded = sign * quantize(sign * w, config).decode()
        if zero_point == "int":
            reach = np.ptp(np.asarray(w).reshape(2, 32, 3), axis=1).max()
            assert 0 <= decoded.min() and decoded.max() <= reach + 1e-6 < 0.51
        else:
            assert np.abs(decoded - w).max() < 0.06
    mixed = jnp.asarray(np.random.default_rng(1).normal(size=(64, 3)), jnp.float32)
    if zero_point != "float":
        same = QuantConfig(bits=4, group_size=32)
        np.testing.assert_array_equal(
            quantize(mixed, config).decode(), quantize(mixed, same).decode()
        )
