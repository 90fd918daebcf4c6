import re

import pytest

from jeff.mbq import BalanceConfig
from jeff.quantize import QuantConfig

W3 = QuantConfig(bits=3, group_size=64)


def test_defaults_are_those_of_the_original_program():
    config = BalanceConfig(weights=W3)
    assert (config.loss, config.reweight, config.grid) == ("mae", "ratio_floor", 20)
    assert config.activation_bits is None and config.smoothing == 0.5
    assert config.reference == "language"


def test_settings_are_hashable():
    assert hash(BalanceConfig(weights=W3)) == hash(BalanceConfig(weights=W3))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("activation_bits", 1, "activation_bits must be in [2, 8], got 1"),
        ("activation_bits", 16, "activation_bits must be in [2, 8], got 16"),
        ("loss", "huber", "loss must be 'mae' or 'mse', got 'huber'"),
        ("reweight", "token", "reweight must be one of ("),
        ("grid", 0, "grid must be at least 1, got 0"),
        ("share", "min", "share must be 'max' or 'mean', got 'min'"),
        ("smoothing", 1.5, "smoothing must be in [0, 1], got 1.5"),
        ("smoothing", float("nan"), "smoothing must be in [0, 1], got nan"),
        ("fold_tolerance", 0.0, "fold_tolerance must be > 0, got 0.0"),
        ("fold_tolerance", float("nan"), "fold_tolerance must be > 0, got nan"),
    ],
)
def test_values_are_checked(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BalanceConfig(weights=W3, **{field: value})


def test_quantizer_must_be_one():
    with pytest.raises(TypeError, match="weights must be a QuantConfig, got 3"):
        BalanceConfig(weights=3)
