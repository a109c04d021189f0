"""The complex inverse Wishart distribution of Hermitian positive definite matrices."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array
from numpyro.distributions.util import validate_sample

from vbss.distributions.cholesky import adjoint, squared
from vbss.distributions.complex_wishart import bartlett, log_complex_multigamma, wishart_arguments
from vbss.distributions.constraints import hermitian_positive_definite
from vbss.hermitian import inverse_and_log_determinant, pack, unpack


class ComplexInverseWishart(dist.Distribution):
    """H ~ IW_C(nu, Psi), with density proportional to |H|^-(nu+M) exp(-tr(Psi H^-1)).

    Args:
        degrees_of_freedom: nu > M - 1, real, broadcastable with the batch; the mean Psi / (nu - M) exists for nu > M.
        packed_scale: Psi as packed real coordinates (`vbss.hermitian.pack`), shape (*batch, M*M).

    Values are complex Hermitian positive definite matrices (*batch, M, M). Sufficient statistics: the packed precision
    H^-1 and log|H|. Source: deep Bayesian cGMM paper, equation (6), with its normaliser.

    Raises:
        InputError: if an argument is complex, `packed_scale` does not end in M*M entries, or the shapes do not
            broadcast.
    """

    support = hermitian_positive_definite  # type: ignore[assignment]
    pytree_data_fields = ("degrees_of_freedom", "packed_scale")

    def __init__(self, degrees_of_freedom, packed_scale, *, validate_args=None):
        self.degrees_of_freedom, self.packed_scale, batch_shape, size = wishart_arguments(
            "packed_scale", degrees_of_freedom, packed_scale
        )
        super().__init__(batch_shape, (size, size), validate_args=validate_args)

    def sample(self, key, sample_shape=()):  # type: ignore[override]
        """L B^-H B^-1 L^H with Psi = L L^H and B by Bartlett's construction: the inverse of a Wishart matrix."""
        assert key is not None
        shape, size = (*sample_shape, *self.batch_shape), self.event_shape[-1]
        white = bartlett(key, self.degrees_of_freedom, shape, size)
        scale = jnp.broadcast_to(jnp.linalg.cholesky(unpack(self.packed_scale)), white.shape)
        return unpack(pack(squared(adjoint(solve_triangular(white, adjoint(scale), lower=True)))))

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
