"""The complex inverse Wishart distribution of Hermitian positive definite matrices."""

from math import isqrt

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Float
from numpyro.distributions.util import validate_sample

from vbss.distributions.constraints import hermitian_positive_definite
from vbss.hermitian import inverse_and_log_determinant, pack, unpack


def log_complex_multigamma(concentration: Float[Array, "*batch"], size: int) -> Float[Array, "*batch"]:
    """log of the complex multivariate gamma function, M(M-1)/2 log pi + sum_i log Gamma(nu - i)."""
    shifted = concentration[..., None] - jnp.arange(size, dtype=concentration.dtype)
    return size * (size - 1) / 2 * jnp.log(jnp.pi).astype(concentration.dtype) + gammaln(shifted).sum(-1)


class ComplexInverseWishart(dist.Distribution):
    """H ~ IW_C(nu, Psi), with density proportional to |H|^-(nu+M) exp(-tr(Psi H^-1)).

    Args:
        degrees_of_freedom: nu > M - 1, real, broadcastable with the batch; the mean Psi / (nu - M) exists for nu > M.
        packed_scale: Psi as packed real coordinates (`vbss.hermitian.pack`), shape (*batch, M*M).

    Values are complex Hermitian positive definite matrices (*batch, M, M). Sufficient statistics: the packed precision
    H^-1 and log|H|. Source: deep Bayesian cGMM paper, equation (6), with its normaliser.

    Raises:
        ValueError: if `packed_scale` is complex or its last axis does not have M*M entries.
    """

    support = hermitian_positive_definite  # type: ignore[assignment]
    pytree_data_fields = ("degrees_of_freedom", "packed_scale")

    def __init__(self, degrees_of_freedom, packed_scale, *, validate_args=None):
        packed_scale = jnp.asarray(packed_scale)
        shape = packed_scale.shape
        if not shape or isqrt(shape[-1]) ** 2 != shape[-1] or jnp.iscomplexobj(packed_scale):
            raise ValueError(
                "packed_scale must hold the M*M real coordinates of Psi (vbss.hermitian.pack) along its last axis, got "
                f"{packed_scale.dtype} of shape {shape}"
            )
        self.degrees_of_freedom = jnp.asarray(degrees_of_freedom, packed_scale.dtype)
        self.packed_scale = packed_scale
        size = isqrt(shape[-1])
        batch_shape = jnp.broadcast_shapes(self.degrees_of_freedom.shape, shape[:-1])
        super().__init__(batch_shape, (size, size), validate_args=validate_args)

    def sample(self, key, sample_shape=()):  # type: ignore[override]
        """Bartlett's construction of the precision, inverted."""
        size = self.event_shape[-1]
        shape = (*sample_shape, *self.batch_shape)
        assert key is not None
        key_diagonal, key_lower = jax.random.split(key)
        precision_scale, _ = inverse_and_log_determinant(self.packed_scale)
        factor = jnp.linalg.cholesky(unpack(precision_scale))
        dtype = factor.dtype
        concentration = self.degrees_of_freedom[..., None] - jnp.arange(size, dtype=self.packed_scale.dtype)
        chi = jnp.sqrt(jax.random.gamma(key_diagonal, jnp.broadcast_to(concentration, (*shape, size))))
        lower = jnp.tril(jax.random.normal(key_lower, (*shape, size, size), dtype), -1)
        root = factor @ (lower + chi.astype(dtype)[..., None] * jnp.eye(size, dtype=dtype))
        precision = root @ jnp.conj(jnp.swapaxes(root, -1, -2))
        return unpack(inverse_and_log_determinant(pack(precision))[0])

    @validate_sample
    def log_prob(self, value):
        return self.expected_log_prob(self.sufficient_statistics(value))

    def sufficient_statistics(self, value) -> dict[str, Array]:
        """`precision`: packed H^-1 (*batch, M*M); `log_determinant`: log|H| (*batch)."""
        precision, log_determinant = inverse_and_log_determinant(pack(value))
        return {"precision": precision, "log_determinant": log_determinant}

    def expected_log_prob(self, statistics: dict[str, Array]) -> Array:
        """The log density, linear in the sufficient statistics."""
        size = self.event_shape[-1]
        nu = self.degrees_of_freedom
        _, log_determinant_scale = inverse_and_log_determinant(self.packed_scale)
        normaliser = nu * log_determinant_scale - log_complex_multigamma(nu, size)
        trace = (self.packed_scale * statistics["precision"]).sum(-1)
        return normaliser - (nu + size) * statistics["log_determinant"] - trace

    def _divided(self, offset: int) -> Array:
        divisor = jnp.broadcast_to(self.degrees_of_freedom + offset, self.batch_shape)
        return self.packed_scale / divisor[..., None]

    @property
    def mean(self):
        """Psi / (nu - M), for nu > M."""
        return unpack(self._divided(-self.event_shape[-1]))

    @property
    def packed_mode(self):
        """Psi / (nu + M), packed."""
        return self._divided(self.event_shape[-1])
