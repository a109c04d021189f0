"""Where factors begin when the user says so."""

from functools import partial
from math import isqrt

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from vbss.errors import InputError
from vbss.factors.base import Factor
from vbss.factors.given import GivenFactor
from vbss.factors.mode import ModeFactor
from vbss.factors.statistics import StatisticsFactor
from vbss.families import Categorical, ComplexInverseWishart
from vbss.hermitian import pack


def started(factor: Factor, value: Array) -> Factor:
    """The factor placed at a given start: probabilities for an indicator, a matrix for a covariance.

    Raises:
        ValueError: if the factor cannot be started from an array, the shape is another, or it holds no probabilities.
    """
    if isinstance(factor, StatisticsFactor) and isinstance(factor.family, Categorical):
        key, axis, expected = "onehot", factor.family.axis, factor.natural["onehot"]
    elif isinstance(factor, GivenFactor):
        key, axis, expected = "logits", -1, factor.logits
    elif isinstance(factor, ModeFactor | StatisticsFactor) and isinstance(factor.family, ComplexInverseWishart):
        log_determinant = factor.natural["log_determinant"]
        size = isqrt(factor.natural["precision"].shape[-1])
        _check_shape(factor.site, value, (*log_determinant.shape, size, size))
        # A factor at its mode stands at the matrix, one with a spread has its inverse as the expected precision.
        weight = -log_determinant - (size if isinstance(factor, StatisticsFactor) else 0)
        return factor.with_natural({"precision": -weight[..., None] * pack(value), "log_determinant": log_determinant})
    else:
        raise InputError(f"start: site {factor.sites[-1]!r} cannot be started from an array")
    _check_shape(factor.sites[0], value, jnp.moveaxis(expected, axis, -1).shape)
    if not isinstance(value, Tracer) and not bool(_are_probabilities(value)):
        raise InputError(
            f"start: site {factor.sites[0]!r} must hold probabilities of the states along its last axis: none negative "
            "or nan, not all zero"
        )
    logits = _log_probabilities(jnp.asarray(value, expected.dtype), axis)
    return factor.with_natural({**factor.canonical(), key: logits})


# Compiled, as are all that run once outside the iteration: a start is otherwise the compilation of many small things.
@jax.jit
def _are_probabilities(value: Array) -> Array:
    return ((value >= 0).all(-1) & (value.sum(-1) > 0)).all()


@partial(jax.jit, static_argnums=1)
def _log_probabilities(value: Array, axis: int) -> Array:
    return jnp.moveaxis(jnp.log(jnp.maximum(value, jnp.finfo(value.dtype).tiny)), -1, axis)


def _check_shape(site: str, value: Array, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise InputError(f"start: site {site!r} must have shape {shape}, got {value.shape}")
