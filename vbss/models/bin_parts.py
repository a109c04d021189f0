"""Bins as lists of real arrays (F, N): M real parts, then M imaginary parts, or the entries of packed matrices.

Each is an array by itself, as loops over arrays of one shape are the fastest: stacked, they would go through memory.
"""

from functools import reduce
from math import sqrt

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float


def real_parts(mixture: Complex[Array, "f n m"], is_heard: Bool[Array, "f n"]) -> list[Float[Array, "f n"]]:
    """Those of the bins, 0 where they do not count."""
    both = [array[..., m] for array in (mixture.real, mixture.imag) for m in range(mixture.shape[-1])]
    return [jnp.where(is_heard, part, 0) for part in both]


def mean_powers(parts: list[Float[Array, "f n"]], is_heard: Bool[Array, "f n"]) -> Float[Array, "f n"]:
    """|x|^2 / M, 1 in bins that do not count."""
    return jnp.where(is_heard, reduce(jnp.add, (part * part for part in parts)) / (len(parts) // 2), 1)


def _pairs(size: int) -> list[tuple[int, int]]:
    """Rows and columns of the packed entries above the diagonal."""
    rows, columns = np.triu_indices(size, 1)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def matrix_product(packed: list[Float[Array, "f n"]], vector: list[Float[Array, "f n"]]) -> list[Float[Array, "f n"]]:
    """A x, entry by entry, in real and imaginary parts."""
    size, pairs = len(vector) // 2, _pairs(len(vector) // 2)
    real, imaginary = vector[:size], vector[size:]
    out_real = [packed[m] * real[m] for m in range(size)]
    out_imaginary = [packed[m] * imaginary[m] for m in range(size)]
    for number, (i, j) in enumerate(pairs, size):
        a, b = packed[number] * sqrt(0.5), packed[number + len(pairs)] * sqrt(0.5)
        out_real[i] = out_real[i] + a * real[j] - b * imaginary[j]
        out_imaginary[i] = out_imaginary[i] + a * imaginary[j] + b * real[j]
        out_real[j] = out_real[j] + a * real[i] + b * imaginary[i]
        out_imaginary[j] = out_imaginary[j] + a * imaginary[i] - b * real[i]
    return out_real + out_imaginary


def scatter_entries(vector: list[Float[Array, "f n"]]) -> list[Float[Array, "f n"]]:
    """The entries of pack(y y^H)."""
    size, pairs = len(vector) // 2, _pairs(len(vector) // 2)
    real, imaginary = vector[:size], vector[size:]
    diagonal = [a * a + b * b for a, b in zip(real, imaginary, strict=True)]
    upper_real = [sqrt(2) * (real[i] * real[j] + imaginary[i] * imaginary[j]) for i, j in pairs]
    upper_imaginary = [sqrt(2) * (imaginary[i] * real[j] - real[i] * imaginary[j]) for i, j in pairs]
    return diagonal + upper_real + upper_imaginary
