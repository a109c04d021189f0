"""Arrays with named axes, and products of them summed in the order of the fewest operations."""

import re
from math import prod

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

FEATURE = "P"  # the axis of packed statistics; users' axes are lower case


def distinct_letters(axes: str) -> bool:
    """Whether these are names of axes."""
    return all("a" <= letter <= "z" for letter in axes) and len(set(axes)) == len(axes)


class Labelled(eqx.Module):
    """An array whose trailing dimensions carry one-letter names."""

    array: Array
    axes: str = eqx.field(static=True)

    def __init__(self, axes: str, array: ArrayLike):
        self.axes = axes
        self.array = jnp.asarray(array)
        if not distinct_letters(axes.replace(FEATURE, "")):
            raise ValueError(f"axes must be distinct lower-case letters, got {axes!r}")
        if self.array.ndim < len(axes):
            raise ValueError(f"axes {axes!r} name {len(axes)} dimensions, but the array has shape {self.array.shape}")


def contract(factors: list[Labelled], leading: str, output: str) -> Array:
    """The product of the factors, summed over every axis that is not in the output.

    Args:
        leading: "..." where the factors may have further leading dimensions, which broadcast; otherwise "".
    """
    operands = ",".join(leading + factor.axes for factor in factors)
    arrays = [factor.array for factor in factors]
    # A GPU's default ten-bit mantissa does not survive the inversions that follow.
    return jnp.einsum(f"{operands}->{leading}{output}", *arrays, optimize="optimal", precision="highest")


def summed_product(factors: list[Labelled]) -> Array:
    """The product of the factors, summed over all axes, in the order of the fewest operations."""
    operands = ",".join(factor.axes for factor in factors)
    path, _ = jnp.einsum_path(f"{operands}->", *(factor.array for factor in factors), optimize="optimal")
    pending = list(factors)
    for positions in path:
        chosen = [pending.pop(position) for position in sorted(positions, reverse=True)]
        pending.append(_partial_product(chosen, set().union(*(factor.axes for factor in pending))))
    return pending[0].array


def _partial_product(factors: list[Labelled], needed: set[str]) -> Labelled:
    """The product of one or two factors, summed over the axes that are not needed.

    Axes are ordered as a product of matrices yields them, those of the larger factor last: it is never transposed.
    """
    *others, large = sorted(factors, key=lambda factor: factor.array.size)
    if not needed and others and sorted(others[0].axes) == sorted(large.axes):
        # Of a product of matrices with one entry, the compiler would copy a factor to another layout.
        order = [others[0].axes.index(letter) for letter in large.axes]
        return Labelled("", (jnp.transpose(others[0].array, order) * large.array).sum())
    batch = ""
    if others:
        batch = _batch_of_products(others[0], large, needed)
        others = [_spread(others[0], batch, large)]
    shared = set(large.axes).intersection(*(factor.axes for factor in others))
    kept = [a for a in union(*(factor.axes for factor in [*others, large])) if a in needed or a in batch]
    order = sorted(kept, key=lambda a: (a not in shared, a in large.axes, large.axes.find(a)))
    product = contract([*others, large], "", "".join(order))
    summed = tuple(i for i, a in enumerate(order) if a not in needed)
    return Labelled("".join(a for a in order if a in needed), product.sum(summed) if summed else product)


def _batch_of_products(small: Labelled, large: Labelled, needed: set[str]) -> str:
    """The leading axes of the large factor for each of which there is to be one product of matrices.

    A product of matrices wants the axes that are summed side by side, and so those that stay. Where they alternate, as
    in kd,fdp->kfp or kfp,fdp->kd, the large factor would be copied to another layout; a product for each f leaves it.
    """
    kinds = "".join(("b" if a in needed else "s") if a in small.axes else "f" for a in large.axes)
    start = next((i for i in range(len(kinds)) if re.fullmatch("f*s*|s*f*", kinds[i:])), 0)
    batch = large.axes[:start]
    sizes = {a: size for factor in (small, large) for a, size in zip(factor.axes, factor.array.shape, strict=True)}
    kept = {a for a in small.axes + large.axes if a in needed or a in batch}
    grows = max(prod(sizes[a] for a in {*small.axes, *batch}), prod(sizes[a] for a in kept)) > large.array.size
    return "" if grows else batch


def _spread(factor: Labelled, axes: str, other: Labelled) -> Labelled:
    """The factor, repeated along those of the axes that only the other has."""
    missing = [letter for letter in axes if letter not in factor.axes]
    sizes = [other.array.shape[other.axes.index(letter)] for letter in missing]
    return Labelled("".join(missing) + factor.axes, jnp.broadcast_to(factor.array, (*sizes, *factor.array.shape)))


def union(*axes: str) -> str:
    """Every letter once, in the order of its first place."""
    return "".join(dict.fromkeys("".join(axes)))
