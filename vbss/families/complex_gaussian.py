"""The circular complex Gaussian family of scalars and vectors."""

from math import log, pi, sqrt
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Complex, Float

from vbss.distributions.cholesky import adjoint, log_determinant, squared
from vbss.distributions.complex_normal import ComplexMultivariateNormal, ComplexNormal
from vbss.families.base import Natural, PointFamily
from vbss.hermitian import pack, pack_outer, packed_identity, unpack


class ComplexGaussian(PointFamily):
    """x in C^L (event_rank 1) or C (0): log q = 2 Re(h^H x) - x^H Lambda x - A.

    Natural parameters are real: `linear` (*batch, 2, L), the real and imaginary part of h, and `precision`
    (*batch, L*L), Lambda packed by `vbss.hermitian.pack`; L = 1 for scalars. Statistics are twice the real and
    imaginary part of x, and -pack(x x^H).

    Args:
        event_rank: 0 (every entry on its own) or 1 (vectors along the last axis).
    """

    claim: ClassVar[str] = "a circular quadratic in"
    event_rank: int = eqx.field(static=True)

    def log_partition(self, natural):
        factor, linear = _factor(natural), _complex(natural["linear"])
        mean = _solve(factor, linear)
        product = (linear.real * mean.real + linear.imag * mean.imag).sum(-1)
        return product - log_determinant(factor) + mean.shape[-1] * log(pi)

    def means(self, natural):
        mean, root = _moments(natural)
        return {"linear": 2 * _real(mean), "precision": -pack_outer(mean) - pack(squared(root))}

    def natural(self, means):
        mean = _complex(means["linear"]) / 2
        factor = jnp.linalg.cholesky(unpack(-means["precision"] - pack_outer(mean)))
        identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
        return {"linear": _real(_solve(factor, mean)), "precision": pack(cho_solve((factor, True), identity))}

    def entropy(self, natural):
        factor = _factor(natural)
        return factor.shape[-1] * (1 + log(pi)) - log_determinant(factor)

    def kl(self, natural, other):
        # From the moments, not the log partitions: what the distance of the means from zero adds to those cancels.
        factor, other_factor = _factor(natural), _factor(other)
        mean, other_mean = (_solve(f, _complex(m["linear"])) for f, m in ((factor, natural), (other_factor, other)))
        ratio = solve_triangular(factor, other_factor, lower=True)
        deviation = _product(adjoint(other_factor), mean - other_mean)
        squares = _power(ratio).sum((-2, -1)) + _power(deviation).sum(-1) - mean.shape[-1]
        return squares + log_determinant(factor) - log_determinant(other_factor)

    def sample(self, natural, key):
        mean, root = _moments(natural)
        return self._value(mean + _product(root, jax.random.normal(key, mean.shape, mean.dtype)))

    def mode(self, natural):
        return self.center(natural)

    def perturbed(self, natural, key):
        # The mean moves by about one standard deviation, the precision within the frame of its Cholesky factor.
        key_mean, key_scale = jax.random.split(key)
        mean, root = _moments(natural)
        moved = mean + _product(root, jax.random.normal(key_mean, mean.shape, mean.dtype))
        scale = jnp.exp(jax.random.normal(key_scale, mean.shape, natural["precision"].dtype) / 4)
        precision = squared(_factor(natural) * scale[..., None, :].astype(mean.dtype))
        return {"linear": _real(_product(precision, moved)), "precision": pack(precision)}

    def distribution(self, natural):
        mean = self.center(natural)
        if self.event_rank:
            return ComplexMultivariateNormal(mean, precision_matrix=unpack(natural["precision"]))
        return ComplexNormal(mean, natural["precision"][..., 0] ** -0.5)

    def natural_of(self, fn: Any):
        mean = jnp.broadcast_to(fn.loc, fn.shape())
        if self.event_rank:
            precision = jnp.broadcast_to(fn.precision_matrix, (*mean.shape, mean.shape[-1]))
        else:
            scale = jnp.broadcast_to(fn.scale, mean.shape)[..., None, None]
            precision = jax.lax.complex(scale**-2, jnp.zeros_like(scale))
        return {"linear": _real(_product(precision, self._vector(mean))), "precision": pack(precision)}

    def statistics(self, value):
        vector = self._vector(value)
        return {"linear": 2 * _real(vector), "precision": -pack_outer(vector)}

    def initial(self, value):
        vector = self._vector(value)
        size = vector.shape[-1]
        identity = packed_identity(size, vector.real.dtype)
        precision = jnp.broadcast_to(identity, (*vector.shape[:-1], size * size))
        return {"linear": _real(vector), "precision": precision}

    def points(self, natural):
        # The mean + sqrt(L) c times the columns of a root of the covariance, for c = 1, -1, i, -i: all four, so that
        # E[x x'] comes out circular too.
        mean, root = _moments(natural)
        offsets = jnp.moveaxis(root, -1, 0) * sqrt(mean.shape[-1])
        directions = jnp.concatenate([offsets, -offsets, 1j * offsets, -1j * offsets])
        return self._value(mean[None] + directions)

    def coefficients(self, objective, value):
        # Derivatives in the real and imaginary part. Along the real direction l the Hessian is -2 (Re, Im) of
        # Lambda's column l: L products give all of it.
        vector = self._vector(value)
        size = vector.shape[-1]
        gradient, product = jax.linearize(jax.grad(lambda pair: objective(self._value(_complex(pair)))), _real(vector))
        identity = jnp.eye(size, dtype=gradient.dtype)
        unit = jnp.stack([identity, jnp.zeros_like(identity)], 1).reshape(size, *(1,) * (vector.ndim - 1), 2, size)
        columns = _complex(jax.vmap(product)(jnp.broadcast_to(unit, (size, *gradient.shape))))
        precision = jnp.moveaxis(columns, 0, -1) / -2
        linear = _complex(gradient) / 2 + _product(precision, vector)
        return {"linear": _real(linear), "precision": pack(precision)}

    def center(self, natural):
        return self._value(_solve(_factor(natural), _complex(natural["linear"])))

    def reference(self, natural):
        linear = _complex(natural["linear"])
        mean = _solve(_factor(natural), linear)
        return self._value(mean), (linear.real * mean.real + linear.imag * mean.imag).sum(-1)

    def _vector(self, value: Array) -> Array:
        return value if self.event_rank else value[..., None]

    def _value(self, vector: Array) -> Array:
        return vector if self.event_rank else vector[..., 0]


def _complex(pair: Float[Array, "*batch 2 l"]) -> Complex[Array, "*batch l"]:
    return jax.lax.complex(pair[..., 0, :], pair[..., 1, :])


def _real(vector: Complex[Array, "*batch l"]) -> Float[Array, "*batch 2 l"]:
    return jnp.stack([vector.real, vector.imag], -2)


def _factor(natural: Natural) -> Complex[Array, "*batch l l"]:
    """L of Lambda = L L^H."""
    return jnp.linalg.cholesky(unpack(natural["precision"]))


def _moments(natural: Natural) -> tuple[Complex[Array, "*batch l"], Complex[Array, "*batch l l"]]:
    """The mean, and the root L^-H of the covariance."""
    factor = _factor(natural)
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return _solve(factor, _complex(natural["linear"])), solve_triangular(factor, identity, trans=2, lower=True)


def _solve(factor: Complex[Array, "*batch l l"], vector: Complex[Array, "*batch l"]) -> Complex[Array, "*batch l"]:
    """(L L^H)^-1 x."""
    return cho_solve((factor, True), vector[..., None])[..., 0]


def _product(matrix: Complex[Array, "*batch l l"], vector: Complex[Array, "*batch l"]) -> Complex[Array, "*batch l"]:
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision="highest")


def _power(array: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    return array.real**2 + array.imag**2
