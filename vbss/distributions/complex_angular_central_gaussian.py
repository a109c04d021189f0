"""The complex angular central Gaussian distribution of directions in C^M."""

from math import lgamma, log, pi

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions.util import validate_sample

from vbss.distributions.arguments import as_complex, check_square
from vbss.distributions.cholesky import log_determinant, quadratic_form
from vbss.distributions.constraints import complex_unit_vector, hermitian_positive_definite


class ComplexAngularCentralGaussian(dist.Distribution):
    """z = x / |x| of x ~ N_C(0, B): a distribution on the unit sphere of C^M that knows no phase and no level.

    The density with respect to the sphere's surface is (M-1)! / (2 pi^M) / |B| (z^H B^-1 z)^-M; B and c B are the same
    distribution for every c > 0. Source: Kent, "Data analysis for shapes and images", 1997.

    The sphere has no bijection from real coordinates, so observe this distribution: SVI with an automatic guide and
    NUTS refuse a latent that has it. A program that needs such a latent draws x from a `ComplexMultivariateNormal` and
    hands on x / |x|, which has exactly this distribution.

    Args:
        shape_matrix: B, Hermitian positive definite, complex or real, shape (*batch, M, M).

    Attributes:
        shape_matrix: B, complex64 or complex128.
        scale_tril: its Cholesky factor.

    Values are complex (*batch, M) of norm 1.

    Raises:
        InputError: if the matrix is not square.
        ValueError: with `validate_args`, if it is not Hermitian positive definite.
    """

    shape_matrix: Array
    scale_tril: Array
    arg_constraints = {"shape_matrix": hermitian_positive_definite}
    support = complex_unit_vector  # type: ignore[assignment]
    reparametrized_params = ["shape_matrix"]
    pytree_data_fields = ("shape_matrix", "scale_tril")

    def __init__(self, shape_matrix, *, validate_args=None):
        (self.shape_matrix,) = as_complex(shape_matrix)
        check_square("shape_matrix", self.shape_matrix)
        self.scale_tril = jnp.linalg.cholesky(self.shape_matrix)
        *batch_shape, size, _ = self.shape_matrix.shape
        super().__init__(tuple(batch_shape), (size,), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        assert key is not None
        noise = jax.random.normal(key, self.shape(sample_shape), self.scale_tril.dtype)
        vector = jnp.einsum("...ij,...j->...i", self.scale_tril, noise, precision="highest")
        norm = jnp.linalg.norm(vector, axis=-1, keepdims=True)
        return vector / norm.astype(vector.dtype)

    @validate_sample
    def log_prob(self, value):
        (value,) = as_complex(value)
        shape = jnp.broadcast_shapes(value.shape, self.shape())
        size = shape[-1]
        normaliser = lgamma(size) - log(2) - size * log(pi) - log_determinant(self.scale_tril)
        power = quadratic_form(self.scale_tril, jnp.broadcast_to(value, shape))
        return jnp.broadcast_to(normaliser, shape[:-1]) - size * jnp.log(power)
