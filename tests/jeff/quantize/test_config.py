"""Settings are checked when they are made, and hash."""

import pytest

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
        ({"bits": 4, "zero_point": "none"}, "zero_point must be one of .* got 'none'"),
        ({"bits": 4, "symmetric": True, "zero_point": "float"}, "'float'"),
        ({"bits": 4, "scale_dtype": "int8"}, "scale_dtype must be one of .* 'int8'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        QuantConfig(**fields)
