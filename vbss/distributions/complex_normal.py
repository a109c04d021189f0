"""The circular complex normal distributions of scalars and vectors."""

from math import log, pi

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Complex
from numpyro.distributions import constraints
from numpyro.distributions.util import lazy_property, validate_sample

from vbss.distributions.arguments import as_complex, check_square, common_batch
from vbss.distributions.cholesky import factor_of_inverse, log_determinant, quadratic_form, squared
from vbss.distributions.constraints import (
    complex_lower_cholesky,
    complex_scalar,
    complex_vector,
    hermitian_positive_definite,
)
from vbss.errors import InputError


class ComplexNormal(dist.Distribution):
    """x ~ N_C(loc, scale^2) in C: circular, with E|x - loc|^2 = scale^2.

    The density in (Re x, Im x) is exp(-|x - loc|^2 / scale^2) / (pi scale^2): real and imaginary part are independent,
    each of variance scale^2 / 2. `vbss.ComplexNormal` is another thing: a density of vectors for `vbss.Gated`.

    Args:
        loc: the mean, complex, broadcastable with `scale`.
        scale: the root of the mean squared modulus of x - loc, real and positive.

    Attributes:
        loc: complex64 or complex128 as the widest argument.
        scale: float32 or float64 to match.

    Raises:
        InputError: if `scale` is complex, or the shapes do not broadcast.
        ValueError: with `validate_args`, if `loc` is not finite or `scale` is not positive.
    """

    loc: Array
    scale: Array
    arg_constraints = {"loc": complex_scalar, "scale": constraints.positive}
    support = complex_scalar  # type: ignore[assignment]
    reparametrized_params = ["loc", "scale"]

    def __init__(self, loc=0.0, scale=1.0, *, validate_args=None):
        scale = jnp.asarray(scale)
        if jnp.iscomplexobj(scale):
            raise InputError(f"scale must be real, got {scale.dtype}.")
        self.loc, complex_scale = as_complex(loc, scale)
        self.scale = complex_scale.real
        batch_shape = common_batch(loc=self.loc.shape, scale=self.scale.shape)
        super().__init__(batch_shape, validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        assert key is not None
        shape = self.shape(sample_shape)
        noise = jax.random.normal(key, shape, self.loc.dtype)
        loc, scale = jnp.broadcast_to(self.loc, shape), jnp.broadcast_to(self.scale, shape)
        return loc + jax.lax.complex(scale * noise.real, scale * noise.imag)

    @validate_sample
    def log_prob(self, value):
        value, loc, scale = jnp.broadcast_arrays(jnp.asarray(value), self.loc, self.scale)
        real, imaginary = (value.real - loc.real) / scale, (value.imag - loc.imag) / scale
        return -(real**2 + imaginary**2) - 2 * jnp.log(scale) - log(pi)

    @property
    def mean(self):
        return jnp.broadcast_to(self.loc, self.batch_shape)

    @property
    def variance(self):
        """E|x - loc|^2 = scale^2, real."""
        return jnp.broadcast_to(self.scale**2, self.batch_shape)


class ComplexMultivariateNormal(dist.Distribution):
    """x ~ N_C(loc, Sigma) in C^M: circular, with E[(x - loc)(x - loc)^H] = Sigma.

    The density in (Re x, Im x) is exp(-(x - loc)^H Sigma^-1 (x - loc)) / (pi^M |Sigma|). Of the three matrices exactly
    one is given; each is complex or real, and factorised once.

    Args:
        loc: the mean, shape (*batch, M), or one number for all entries.
        covariance_matrix: Sigma, Hermitian positive definite, shape (*batch, M, M).
        precision_matrix: Sigma^-1, Hermitian positive definite, shape (*batch, M, M).
        scale_tril: L of Sigma = L L^H, lower triangular with a positive diagonal, shape (*batch, M, M).

    Attributes:
        loc: complex64 or complex128 as the widest argument.
        scale_tril: L, of the same dtype.

    Raises:
        InputError: if not exactly one matrix is given, or the shapes do not fit.
        ValueError: with `validate_args`, if `loc` is not finite or the matrix is not what it should be.
    """

    loc: Array
    scale_tril: Array
    arg_constraints = {
        "loc": complex_vector,
        "covariance_matrix": hermitian_positive_definite,
        "precision_matrix": hermitian_positive_definite,
        "scale_tril": complex_lower_cholesky,
    }
    support = complex_vector  # type: ignore[assignment]
    reparametrized_params = ["loc", "covariance_matrix", "precision_matrix", "scale_tril"]

    def __init__(self, loc=0.0, covariance_matrix=None, precision_matrix=None, scale_tril=None, *, validate_args=None):
        matrices = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        given = {name: matrix for name, matrix in matrices.items() if matrix is not None}
        if len(given) != 1:
            raise InputError(f"exactly one of {', '.join(matrices)} must be given, got {', '.join(given) or 'none'}.")
        ((name, matrix),) = given.items()
        loc, matrix = as_complex(loc, matrix)
        check_square(name, matrix)
        size = matrix.shape[-1]
        if loc.ndim and loc.shape[-1] != size:
            raise InputError(f"loc must end in an axis of {size} entries as {name} does, got shape {loc.shape}.")
        self.loc = loc if loc.ndim else jnp.broadcast_to(loc, (size,))
        if name == "covariance_matrix":
            self.covariance_matrix = matrix  # type: ignore[assignment]
            self.scale_tril = jnp.linalg.cholesky(matrix)
        elif name == "precision_matrix":
            self.precision_matrix = matrix  # type: ignore[assignment]
            self.scale_tril = factor_of_inverse(matrix)
        else:
            self.scale_tril = matrix
        batch_shape = common_batch(**{"loc": self.loc.shape[:-1], name: matrix.shape[:-2]})
        super().__init__(batch_shape, (size,), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        assert key is not None
        shape = self.shape(sample_shape)
        noise = jax.random.normal(key, shape, self.loc.dtype)
        deviation = jnp.einsum("...ij,...j->...i", self.scale_tril, noise, precision="highest")
        return jnp.broadcast_to(self.loc, shape) + deviation

    @validate_sample
    def log_prob(self, value):
        (value,) = as_complex(value)
        shape = jnp.broadcast_shapes(value.shape, self.shape())
        deviation = jnp.broadcast_to(value, shape) - jnp.broadcast_to(self.loc, shape)
        normaliser = log_determinant(self.scale_tril) + shape[-1] * log(pi)
        return -quadratic_form(self.scale_tril, deviation) - jnp.broadcast_to(normaliser, shape[:-1])

    @lazy_property
    def covariance_matrix(self) -> Complex[Array, "*batch m m"]:
        return squared(self.scale_tril)

    @lazy_property
    def precision_matrix(self) -> Complex[Array, "*batch m m"]:
        identity = jnp.eye(self.event_shape[0], dtype=self.scale_tril.dtype)
        return cho_solve((self.scale_tril, True), jnp.broadcast_to(identity, self.scale_tril.shape))

    @property
    def mean(self):
        return jnp.broadcast_to(self.loc, self.shape())

    @property
    def variance(self):
        """E|x_i - loc_i|^2, the real diagonal of Sigma."""
        power = self.scale_tril.real**2 + self.scale_tril.imag**2
        return jnp.broadcast_to(power.sum(-1), self.shape())
