"""Every register of the table has the maximal period, by proof."""

import math
import random

import pytest

from hwsim.rng import TAPS, maximal_taps

# 2^255 - 1 is too large for Pollard's method below in a test: its prime factors.
FACTORS_255 = (
    7, 31, 103, 151, 2143, 11119, 106591, 131071, 949111, 9520972806333758431,
    5702451577639775545838643151,
)  # fmt: skip


def is_prime(n):
    """Miller and Rabin's test with 40 bases: wrong with probability below 4^-40."""
    if n < 4 or n % 2 == 0:
        return n in (2, 3)
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    source = random.Random(0)
    for _ in range(40):
        x = pow(source.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def prime_factors(n):
    """By trial division, then Pollard's rho."""
    found = set()
    for p in range(2, 1000):
        while n % p == 0:
            found.add(p)
            n //= p
    left = [n] if n > 1 else []
    while left:
        n = left.pop()
        if is_prime(n):
            found.add(n)
            continue
        step, divisor = 0, n
        while divisor == n:
            step += 1
            slow = fast = 2
            divisor = 1
            while divisor == 1:
                slow = (slow * slow + step) % n
                fast = (fast * fast + step) % n
                fast = (fast * fast + step) % n
                divisor = math.gcd(slow - fast, n)
        left += [divisor, n // divisor]
    return found


def product(a, b, polynomial, width):
    """a times b over GF(2), modulo the polynomial."""
    result = 0
    while b:
        if b & 1:
            result ^= a
        b >>= 1
        a <<= 1
        if a >> width & 1:
            a ^= polynomial
    return result


def power_of_x(exponent, polynomial, width):
    result, base = 1, 2
    while exponent:
        if exponent & 1:
            result = product(result, base, polynomial, width)
        base = product(base, base, polynomial, width)
        exponent >>= 1
    return result


def has_maximal_period(width, taps):
    """Whether the order of x modulo the polynomial of the taps is 2^width - 1."""
    polynomial = 1 + sum(1 << tap for tap in taps)
    period = 2**width - 1
    factors = FACTORS_255 if width == 255 else prime_factors(period)
    return power_of_x(period, polynomial, width) == 1 and all(
        power_of_x(period // p, polynomial, width) != 1 for p in factors
    )


@pytest.mark.parametrize("width", sorted(TAPS))
def test_the_polynomial_is_primitive(width):
    assert has_maximal_period(width, maximal_taps(width))


def test_the_factors_of_2_to_the_255_are_prime_and_complete():
    assert all(map(is_prime, FACTORS_255))
    left = 2**255 - 1
    for p in FACTORS_255:
        assert left % p == 0
        while left % p == 0:
            left //= p
    assert left == 1


def test_the_proof_finds_other_taps_out():
    assert not has_maximal_period(8, (8, 4))
    assert not has_maximal_period(32, (32, 22))
    assert not has_maximal_period(64, (64, 1))


def test_a_width_that_is_not_in_the_table_is_an_error():
    with pytest.raises(ValueError, match="3 to 64, 127 or 255, got 100"):
        maximal_taps(100)
