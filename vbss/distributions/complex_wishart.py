"""The complex Wishart distribution of Hermitian positive definite matrices, and what its inverse shares with it."""

from math import isqrt, log, pi

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from jaxtyping import Array, Complex, Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample
from numpyro.util import not_jax_tracer

from vbss.distributions.arguments import as_floating, common_batch
from vbss.distributions.cholesky import squared
from vbss.distributions.constraints import hermitian_positive_definite, packed_hermitian_positive_definite
from vbss.errors import InputError
from vbss.hermitian import inverse_and_log_determinant, pack, unpack


def log_complex_multigamma(concentration: Float[Array, "*batch"], size: int) -> Float[Array, "*batch"]:
    """log of the complex multivariate gamma function, M(M-1)/2 log pi + sum_i log Gamma(nu - i)."""
    return size * (size - 1) / 2 * log(pi) + gammaln(_shifted(concentration, size)).sum(-1)


def wishart_arguments(name: str, degrees_of_freedom, packed) -> tuple[Array, Array, tuple[int, ...], int]:
    """nu and the packed matrix as real arrays of one dtype, the batch shape and M.

    Args:
        name: of the packed matrix, for messages.

    Raises:
        InputError: if an argument is complex, `packed` does not end in M*M entries, or the batches do not broadcast.
    """
    packed, degrees_of_freedom = jnp.asarray(packed), jnp.asarray(degrees_of_freedom)
    shape = packed.shape
    if not shape or not shape[-1] or isqrt(shape[-1]) ** 2 != shape[-1] or jnp.iscomplexobj(packed):
        raise InputError(
            f"{name} must hold the M*M real coordinates of Psi (vbss.hermitian.pack) along its last axis, got "
            f"{packed.dtype} of shape {shape}."
        )
    if jnp.iscomplexobj(degrees_of_freedom):
        raise InputError(f"degrees_of_freedom must be real, got {degrees_of_freedom.dtype}.")
    packed = as_floating(packed)
    degrees_of_freedom = degrees_of_freedom.astype(packed.dtype)
    batch_shape = common_batch(**{"degrees_of_freedom": degrees_of_freedom.shape, name: shape[:-1]})
    return degrees_of_freedom, packed, batch_shape, isqrt(shape[-1])


def bartlett(key, degrees_of_freedom: Float[Array, "*b"], shape: tuple, size: int) -> Complex[Array, "*shape m m"]:
    """Lower triangular B with B B^H ~ W_C(nu, I): its squared diagonal is Gamma(nu - i), below it is N_C(0, 1)."""
    key_diagonal, key_lower = jax.random.split(key)
    dtype = np.result_type(degrees_of_freedom.dtype, np.complex64)
    concentration = jnp.broadcast_to(_shifted(degrees_of_freedom, size), (*shape, size))
    chi = jnp.sqrt(jax.random.gamma(key_diagonal, concentration, dtype=concentration.dtype))
    lower = jnp.tril(jax.random.normal(key_lower, (*shape, size, size), dtype), -1)
    index = np.arange(size)
    return lower.at[..., index, index].set(jax.lax.complex(chi, jnp.zeros_like(chi)))


def _shifted(degrees_of_freedom: Array, size: int) -> Array:
    """nu - i, i = 0..M-1, along a last axis."""
    return jnp.stack([degrees_of_freedom - i for i in range(size)], -1)


class ComplexWishart(dist.Distribution):
    """H ~ W_C(nu, Psi), with density proportional to |H|^(nu-M) exp(-tr(Psi H)).

    The matrix gamma distribution: Psi is a rate, and E[H] = nu Psi^-1. H^-1 ~ `ComplexInverseWishart(nu, Psi)` with the
    same arguments. With N >= M independent x_n ~ N_C(0, Psi^-1), sum_n x_n x_n^H ~ W_C(N, Psi).

    Args:
        degrees_of_freedom: nu > M - 1, real, broadcastable with the batch.
        packed_rate: Psi as packed real coordinates (`vbss.hermitian.pack`), shape (*batch, M*M).

    Values are complex Hermitian positive definite matrices (*batch, M, M); the density is in their coordinates (H_ii,
    Re H_ij, Im H_ij), i < j. Sufficient statistics: the packed H and log|H|. Source: Goodman, "Statistical analysis
    based on a certain multivariate complex Gaussian distribution", 1963.

    Raises:
        InputError: if an argument is complex, `packed_rate` does not end in M*M entries, or the shapes do not
            broadcast; with `validate_args`, if nu is not above M - 1.
        ValueError: with `validate_args`, if Psi is not positive definite.
    """

    degrees_of_freedom: Array
    packed_rate: Array
    arg_constraints = {
        "degrees_of_freedom": constraints.dependent(is_discrete=False, event_dim=0),
        "packed_rate": packed_hermitian_positive_definite,
    }
    support = hermitian_positive_definite  # type: ignore[assignment]
    reparametrized_params = ["degrees_of_freedom", "packed_rate"]

    def __init__(self, degrees_of_freedom, packed_rate, *, validate_args=None):
        self.degrees_of_freedom, self.packed_rate, batch_shape, size = wishart_arguments(
            "packed_rate", degrees_of_freedom, packed_rate
        )
        super().__init__(batch_shape, (size, size), validate_args=validate_args)

    def validate_args(self, strict=True):
        super().validate_args(strict)
        size = self.event_shape[-1]
        valid = self.degrees_of_freedom > size - 1
        if not_jax_tracer(valid) and not valid.all():
            raise InputError(f"degrees_of_freedom must be above M - 1 = {size - 1}, got {self.degrees_of_freedom}.")

    def sample(self, key, sample_shape=()):
        """Bartlett's construction, coloured by a triangular solve with the rate's Cholesky factor."""
        assert key is not None
        shape, size = (*sample_shape, *self.batch_shape), self.event_shape[-1]
        white = bartlett(key, self.degrees_of_freedom, shape, size)
        rate = jnp.broadcast_to(jnp.linalg.cholesky(unpack(self.packed_rate)), white.shape)
        return unpack(pack(squared(solve_triangular(rate, white, trans="C", lower=True))))

    @validate_sample
    def log_prob(self, value):
        return self.expected_log_prob(self.sufficient_statistics(value))

    def sufficient_statistics(self, value) -> dict[str, Array]:
        """`matrix`: packed H (*batch, M*M); `log_determinant`: log|H| (*batch)."""
        packed = pack(jnp.asarray(value))
        return {"matrix": packed, "log_determinant": inverse_and_log_determinant(packed)[1]}

    def expected_log_prob(self, statistics: dict[str, Array]) -> Array:
        """The log density, linear in the sufficient statistics."""
        size = self.event_shape[-1]
        matrix, log_determinant = statistics["matrix"], statistics["log_determinant"]
        shape = jnp.broadcast_shapes(log_determinant.shape, self.batch_shape)
        nu = jnp.broadcast_to(self.degrees_of_freedom, shape)
        log_determinant_rate = jnp.broadcast_to(inverse_and_log_determinant(self.packed_rate)[1], shape)
        rate = jnp.broadcast_to(self.packed_rate, (*shape, size**2))
        trace = (rate * jnp.broadcast_to(matrix, rate.shape)).sum(-1)
        normaliser = nu * log_determinant_rate - log_complex_multigamma(nu, size)
        return normaliser + (nu - size) * jnp.broadcast_to(log_determinant, shape) - trace

    @property
    def mean(self):
        """nu Psi^-1."""
        scale = inverse_and_log_determinant(self.packed_rate)[0]
        nu = jnp.broadcast_to(self.degrees_of_freedom, self.batch_shape)[..., None]
        scale = jnp.broadcast_to(scale, (*self.batch_shape, scale.shape[-1]))
        return unpack(jnp.broadcast_to(nu, scale.shape) * scale)

    @property
    def variance(self):
        """E|H_ij - E[H_ij]|^2 = nu V_ii V_jj with V = Psi^-1, real."""
        diagonal = jnp.diagonal(self.mean, axis1=-2, axis2=-1).real
        nu = jnp.broadcast_to(self.degrees_of_freedom, self.batch_shape)[..., None, None]
        products = diagonal[..., :, None] * diagonal[..., None, :]
        return products / jnp.broadcast_to(nu, products.shape)
