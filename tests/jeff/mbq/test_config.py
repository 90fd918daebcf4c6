import re

import numpy as np
import pytest

from jeff.mbq.config import BalanceConfig, check_used
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
        ("reweight", "token", "reweight must be 'ratio_floor', 'ratio', 'uniform', "),
        ("grid", 0, "grid must be at least 1, got 0"),
        ("share", "min", "share must be 'max' or 'mean', got 'min'"),
        ("rounding", "up", "rounding must be 'nearest' or 'gptq', got 'up'"),
        ("clip_tokens", 0, "clip_tokens must be at least 1, got 0"),
        ("clip_tokens", 64, "clip_tokens=64 has no effect without clip=True"),
        ("smoothing", 1.5, "smoothing must be in [0, 1], got 1.5"),
        ("smoothing", float("nan"), "smoothing must be in [0, 1], got nan"),
        ("damping", -0.1, "damping must be finite and not negative, got -0.1"),
        ("damping", float("inf"), "damping must be finite and not negative, got inf"),
        ("fold_tolerance", 0.0, "fold_tolerance must be > 0, got 0.0"),
        ("fold_tolerance", float("nan"), "fold_tolerance must be > 0, got nan"),
    ],
)
def test_values_are_checked(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BalanceConfig(weights=W3, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("activation_bits", 8.0, "activation_bits must be an integer, got 8.0"),
        ("activation_bits", "8", "activation_bits must be an integer, got '8'"),
        ("loss", None, "loss must be 'mae' or 'mse', got None"),
        ("reweight", True, "reweight must be 'ratio_floor', 'ratio', 'uniform', "),
        ("reference", 0, "reference must be a modality, got 0"),
        ("grid", "2", "grid must be an integer, got '2'"),
        ("grid", 2.0, "grid must be an integer, got 2.0"),
        ("grid", None, "grid must be an integer, got None"),
        ("share", max, "share must be 'max' or 'mean', got <built-in function max>"),
        ("smoothing", "0.5", "smoothing must be a number, got '0.5'"),
        ("damping", "1", "damping must be a number, got '1'"),
        ("clip", "yes", "clip must be True or False, got 'yes'"),
        ("distort", 1, "distort must be True or False, got 1"),
        ("clip_tokens", 1.5, "clip_tokens must be an integer, got 1.5"),
        ("rounding", None, "rounding must be 'nearest' or 'gptq', got None"),
        ("act_order", 1, "act_order must be True or False, got 1"),
        ("weighted_hessian", None, "weighted_hessian must be True or False, got None"),
        ("fold_tolerance", None, "fold_tolerance must be a number, got None"),
        ("fold_tolerance", 1j, "fold_tolerance must be a number, got 1j"),
    ],
)
def test_types_are_checked(field, value, message):
    with pytest.raises(TypeError, match=re.escape(message)) as info:
        BalanceConfig(weights=W3, **{field: value})
    assert "\n" not in str(info.value)


def test_clipping_needs_a_scale_per_channel():
    whole = QuantConfig(bits=8, per_tensor=True)
    with pytest.raises(ValueError, match="weights has one scale per tensor"):
        BalanceConfig(weights=whole, clip=True)


def test_unused_settings_are_refused():
    config = BalanceConfig(weights=W3, rounding="gptq", distort=True)
    check_used(config, "some", ["clip", "clip_tokens"])
    with pytest.raises(
        ValueError, match="config.rounding='gptq' has no effect in some"
    ):
        check_used(config, "some", ["clip", "rounding"])


def test_numbers_become_plain_ones():
    config = BalanceConfig(weights=W3, grid=np.int64(4), smoothing=np.float32(0.5))
    assert repr(config) == repr(BalanceConfig(weights=W3, grid=4))


def test_quantizer_must_be_one():
    with pytest.raises(TypeError, match="weights must be a QuantConfig, got 3"):
        BalanceConfig(weights=3)


def test_weights_of_tokens_that_there_are_not():
    with pytest.raises(ValueError, match='no effect with reweight="none"'):
        BalanceConfig(weights=W3, weighted_hessian=True, reweight="none")
