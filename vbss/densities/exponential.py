"""The exponential-family densities that `Gated` takes: normal, multivariate normal and complex normal."""

from math import isqrt, log, pi
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float
from numpyro.distributions import constraints

from vbss.densities.base import ExponentialFamily, Term
from vbss.densities.labelled import FEATURE, Labelled, union
from vbss.distributions.constraints import complex_vector
from vbss.hermitian import inverse_and_log_determinant, pack_outer, packed_identity, unpack

_SILENCE = 1e-14  # the power below which the loading of a bin sinks no further: digital silence is read as faint noise


class Normal(ExponentialFamily):
    """y ~ N(loc, 1 / precision), scalar and real.

    Args:
        loc, precision: (axes, array) without event axes; precision > 0. In float32 the data should be centred: the
            exponential-family form loses (loc / standard deviation)^2 of its precision.
    """

    loc: Labelled
    precision: Labelled
    support: ClassVar[constraints.Constraint] = constraints.real

    def __init__(self, loc: tuple[str, ArrayLike], precision: tuple[str, ArrayLike]):
        self.loc, self.precision = Labelled(*loc), Labelled(*precision)

    @property
    def event_shape(self):
        return ()

    def parameters(self):
        return [(self.loc, 0), (self.precision, 0)]

    def statistics(self, plates, value):
        return {"value": value, "square": value**2}

    def terms(self, plates, statistics):
        value, square = Labelled(plates, statistics["value"]), Labelled(plates, statistics["square"])
        squared_loc = Labelled(self.loc.axes, self.loc.array**2)
        log_precision = Labelled(self.precision.axes, jnp.log(self.precision.array) - log(2 * pi))
        return [
            Term(-0.5, [square, self.precision]),
            Term(1.0, [value, self.precision, self.loc]),
            Term(-0.5, [self.precision, squared_loc]),
            Term(0.5, [log_precision]),
        ]

    def sample(self, key, pick, shape):
        loc, precision = pick(self.loc, 0), pick(self.precision, 0)
        return loc + jax.random.normal(key, shape, loc.dtype) / jnp.sqrt(precision)


class MultivariateNormal(ExponentialFamily):
    """y ~ N(loc, precision^-1) in R^D, or N(loc, (weight * precision)^-1) when a scalar weight is given.

    Args:
        loc: (axes, array), one event axis. precision: (axes, array), two event axes, symmetric positive definite.
        weight: (axes, array) > 0, no event axis: the gamma-distributed precision scale of a Student-t, for example.
        anchor: shape (D,): statistics are taken of y - anchor. In float32 the exponential-family form loses
            (distance to the anchor / standard deviation)^2 of its precision, so the anchor should be near the data.
    """

    loc: Labelled
    precision: Labelled
    weight: Labelled | None
    anchor: Array | None
    support: ClassVar[constraints.Constraint] = constraints.real_vector

    def __init__(
        self,
        loc: tuple[str, ArrayLike],
        precision: tuple[str, ArrayLike],
        weight: tuple[str, ArrayLike] | None = None,
        anchor: Array | None = None,
    ):
        self.loc, self.precision = Labelled(*loc), Labelled(*precision)
        self.weight = None if weight is None else Labelled(*weight)
        self.anchor = anchor

    @property
    def event_shape(self):
        return self.loc.array.shape[-1:]

    def parameters(self):
        weight = [] if self.weight is None else [(self.weight, 0)]
        return [(self.loc, 1), (self.precision, 2), *weight]

    def statistics(self, plates, value):
        centred = value if self.anchor is None else value - jnp.broadcast_to(self.anchor, value.shape)
        rows, columns = np.triu_indices(centred.shape[-1])
        products = centred[..., rows] * centred[..., columns]
        return {"features": jnp.concatenate([products, centred, jnp.ones_like(centred[..., :1])], -1)}

    def terms(self, plates, statistics):
        # One feature axis [y_i y_j, y_i, 1] turns the sufficient statistics into a single matrix product.
        loc = self.loc.array
        if self.anchor is not None:
            loc = loc - jnp.broadcast_to(self.anchor, loc.shape)
        precision = (self.precision.array + jnp.swapaxes(self.precision.array, -1, -2)) / 2
        size = loc.shape[-1]
        loc_axes, precision_axes = self.loc.axes[:-1], self.precision.axes[:-2]
        axes = union(loc_axes, precision_axes)
        linear = jnp.einsum(f"{precision_axes}XY,{loc_axes}Y->{axes}X", precision, loc)
        quadratic = jnp.einsum(f"{axes}X,{loc_axes}X->{axes}", linear, loc)
        factor = jnp.linalg.cholesky(precision)
        half_log_determinant = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1) - size / 2 * log(2 * pi)
        rows, columns = np.triu_indices(size)
        multiplicity = jnp.asarray(np.where(rows == columns, 1.0, 2.0), loc.dtype)
        doubled = jnp.einsum("...P,P->...P", precision[..., rows, columns], multiplicity)
        # products has the precision's axes only: spread it over the loc's.
        ones = jnp.ones(loc.shape[:-1], loc.dtype)
        products = jnp.einsum(f"{precision_axes}P,{loc_axes}->{axes}P", doubled, ones)
        natural = jnp.concatenate([-0.5 * products, linear, -0.5 * quadratic[..., None]], -1)
        features = Labelled(plates + FEATURE, statistics["features"])
        weight = [] if self.weight is None else [self.weight]
        terms = [
            Term(1.0, [features, Labelled(axes + FEATURE, natural), *weight]),
            Term(1.0, [Labelled(precision_axes, half_log_determinant)]),
        ]
        if self.weight is not None:
            terms.append(Term(size / 2, [Labelled(self.weight.axes, jnp.log(self.weight.array))]))
        return terms

    def sample(self, key, pick, shape):
        loc, precision = pick(self.loc, 1), pick(self.precision, 2)
        if self.weight is not None:
            precision = precision * pick(self.weight, 0)[..., None, None]
        noise = jax.random.normal(key, (*shape, *self.event_shape), loc.dtype)
        factor = jnp.broadcast_to(jnp.linalg.cholesky(precision), (*shape, *precision.shape[-2:]))
        whitened = jax.scipy.linalg.solve_triangular(factor, noise[..., None], trans=1, lower=True)
        return loc + whitened[..., 0]


class ComplexNormal(ExponentialFamily):
    """x ~ N_C(0, power * P^-1) in C^M: circular, with the shape of a precision P and a scalar power.

    Args:
        precision: (axes, array), one event axis: P as M^2 packed real coordinates (`vbss.hermitian.pack`).
        log_determinant: (axes, array): log|P^-1|, beside P so that no derivative passes through a factorisation.
        power: (axes, array) > 0.
        loading: (axes, array) >= 0, axes among the plates: every scatter x x^H is read as (x x^H + loading |x|^2/M I) /
            (1 + loading), the expected log density when white noise that far below x is present in each bin. It bounds
            the density on noise-free recordings and what float32 must resolve (cond <= M / loading). A constant.
    """

    precision: Labelled
    log_determinant: Labelled
    power: Labelled
    loading: Labelled | None
    support: ClassVar[constraints.Constraint] = complex_vector

    def __init__(
        self,
        precision: tuple[str, ArrayLike],
        log_determinant: tuple[str, ArrayLike],
        power: tuple[str, ArrayLike],
        loading: tuple[str, ArrayLike] | None = None,
    ):
        self.precision, self.log_determinant = Labelled(*precision), Labelled(*log_determinant)
        self.power = Labelled(*power)
        self.loading = None if loading is None else Labelled(*loading)

    @property
    def event_shape(self):
        return (isqrt(self.precision.array.shape[-1]),)

    def parameters(self):
        return [(self.precision, 1), (self.log_determinant, 0), (self.power, 0)]

    def statistics(self, plates, value):
        if self.loading is None:
            scatter = pack_outer(value)
        else:
            absent = [plates.index(letter) - len(plates) for letter in plates if letter not in self.loading.axes]
            scatter = loaded_scatter(value, jnp.expand_dims(self.loading.array, absent))
        # The last plate, usually the long one, is contiguous.
        return {"scatter": jnp.swapaxes(scatter, -1, -2)}

    def terms(self, plates, statistics):
        size = isqrt(statistics["scatter"].shape[-2])
        inverse_power = Labelled(self.power.axes, _reciprocal(self.power.array))
        log_power = Labelled(self.power.axes, size * (jnp.log(self.power.array) + log(pi)))
        precision = Labelled(self.precision.axes[:-1] + FEATURE, self.precision.array)
        return [
            Term(-1.0, [Labelled(plates[:-1] + FEATURE + plates[-1], statistics["scatter"]), precision, inverse_power]),
            Term(-1.0, [self.log_determinant]),
            Term(-1.0, [log_power]),
        ]

    def sample(self, key, pick, shape):
        precision, power = pick(self.precision, 1), pick(self.power, 0)
        covariance = unpack(inverse_and_log_determinant(precision / power[..., None])[0])
        factor = jnp.linalg.cholesky(covariance)
        noise = jax.random.normal(key, (*shape, *self.event_shape), factor.dtype)
        return jnp.einsum("...ij,...j->...i", factor, noise)


@jax.custom_jvp
def _reciprocal(x: Array) -> Array:
    """1 / x with the derivative -(y dx) y, which does not overflow where x is tiny: 1 / x^2 would, in float32."""
    return 1 / x


@_reciprocal.defjvp
def _(primals, tangents):
    inverse = _reciprocal(primals[0])
    return inverse, -(inverse * tangents[0]) * inverse


def loaded_scatter(value: Complex[Array, "*plates m"], loading: Float[Array, "..."]) -> Float[Array, "*plates p"]:
    """Packed (x x^H + loading |x|^2 / M I) / (1 + loading); the loading of silence stays that of faint noise.

    Args:
        loading: broadcastable with the plates, of their rank.
    """
    scatter = pack_outer(value)
    size = value.shape[-1]
    loading = loading[..., None]
    power = jnp.maximum(scatter[..., :size].sum(-1, keepdims=True), _SILENCE)
    identity = packed_identity(size, scatter.dtype).reshape(*(1,) * (scatter.ndim - 1), -1)
    return (scatter + loading * power / size * identity) / (1 + loading)
