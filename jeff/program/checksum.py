"""Checksums of traced programs and of arrays, the same in every process."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.program import compat

__all__ = ["checksum", "described", "program_checksum"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def checksum(value: Any) -> str:
    """A short checksum of a pytree: its structure, dtypes, shapes and numbers.

    Arrays count as JAX would take them: without 64-bit types, float64 is float32.

    Args:
      value: Any pytree of arrays and plain values; arrays are taken to the host one by
        one.

    Returns:
      16 hexadecimal digits.

    Examples:
      >>> checksum(jnp.arange(3)) == checksum(np.arange(3, dtype=np.int32))
      True
      >>> checksum(jnp.arange(3)) == checksum(np.arange(3, dtype=np.int16))
      False
      >>> checksum(np.ones(3)) == checksum(jnp.ones(3))  # float64 becomes float32
      True
    """
    state = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        state.update(jax.tree_util.keystr(path).encode())
        if not hasattr(leaf, "dtype"):
            state.update(repr(leaf).encode())
            continue
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            leaf = jax.random.key_data(leaf)
        if not isinstance(leaf, jax.Array):  # as the program will see it
            leaf = np.asarray(leaf)
            with np.errstate(over="ignore"):
                leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype))
        array = np.asarray(leaf, order="C")
        state.update(f"{array.dtype.name}{array.shape}".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def described(array: Any) -> str:
    """Dtype, shape and checksum of an array, for a record.

    Args:
      array: An array, a stored weight, or a plain value.

    Returns:
      One line.

    Examples:
      >>> described(np.zeros((2, 3), np.float32))
      'float32[2, 3] d7c29010618100a1'
    """
    dtype, shape = getattr(array, "dtype", type(array)), list(np.shape(array))
    return f"{dtype}{shape} {checksum(array)}"


def program_checksum(program: Any) -> str:
    """A checksum of what a program computes: equations, parameters and constants.

    Variables count by the order in which they are made, constants by their numbers.
    What has no meaning outside of a process is left out: addresses, the order of sets,
    and the Python functions that make a custom derivative.

    Args:
      program: A closed jaxpr, as `jax.make_jaxpr` gives.

    Returns:
      32 hexadecimal digits.

    Examples:
      >>> import jax.numpy as jnp
      >>> def checked(f):
      ...     return program_checksum(jax.make_jaxpr(f)(jnp.ones(3)))
      >>> checked(lambda x: jnp.tanh(x)) == checked(lambda y: jnp.tanh(y))
      True
      >>> checked(jnp.tanh) == checked(jnp.sin)
      False
    """
    return _Writer().jaxpr(program).hex()


class _Writer:
    """Digests of jaxprs; one that occurs again is not walked again."""

    def __init__(self):
        self._known: dict[int, tuple[Any, bytes]] = {}  # the jaxpr keeps its id taken

    def jaxpr(self, jaxpr: Any) -> bytes:
        if id(jaxpr) not in self._known:
            self._known[id(jaxpr)] = jaxpr, self._digest(jaxpr)
        return self._known[id(jaxpr)][1]

    def _digest(self, jaxpr: Any) -> bytes:
        inner, numbers = compat.open_jaxpr(jaxpr), {}
        parts: list[Any] = [compat.consts_of(jaxpr)]

        def made(variables):
            for variable in variables:
                numbers[variable] = len(numbers)
            return [v.aval.str_short() for v in variables]

        def read(atom):
            if compat.is_literal(atom):
                return "literal", atom.aval.str_short(), atom.val
            return numbers[atom]

        parts += [made(inner.constvars), made(inner.invars)]
        for eqn in inner.eqns:
            operands = [read(a) for a in eqn.invars]
            parts += [eqn.primitive.name, operands, made(eqn.outvars), eqn.params]
        parts.append([read(a) for a in inner.outvars])
        return self._value(parts)

    def _value(self, value: Any) -> bytes:
        """The digest of a parameter of an equation."""
        state = hashlib.blake2b(digest_size=16)

        def add(kind: str, *pieces: bytes):
            state.update(f"{kind}:{len(pieces)};".encode())
            for piece in pieces:
                state.update(f"{len(piece)};".encode() + piece)

        if hasattr(compat.open_jaxpr(value), "eqns"):
            add("jaxpr", self.jaxpr(value))
        elif isinstance(value, Mapping):
            items = sorted(value.items(), key=lambda item: str(item[0]))
            add("mapping", *(self._value(part) for item in items for part in item))
        elif isinstance(value, list | tuple):
            add("sequence", *(self._value(part) for part in value))
        elif isinstance(value, set | frozenset):
            add("set", *sorted(self._value(part) for part in value))
        elif isinstance(value, jax.Array | np.ndarray | np.generic):
            if isinstance(value, jax.Array) and jnp.issubdtype(
                value.dtype, jax.dtypes.prng_key
            ):
                value = jax.random.key_data(value)
            array = np.asarray(value, order="C")
            about = f"{array.dtype.name}{array.shape}".encode()
            add("array", about, array.reshape(-1).view(np.uint8).tobytes())
        elif callable(value):
            name = getattr(value, "__qualname__", type(value).__qualname__)
            add("function", name.encode())
        else:
            add("plain", _ADDRESS.sub("", repr(value)).encode())
        return state.digest()
