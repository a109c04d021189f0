"""The linear Gaussian Markov chain as one site; with a gate, a chain whose dynamics switch."""

from math import log, pi

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from vbss.distributions.arguments import check_square, common_batch
from vbss.errors import InputError, whole_number


class GaussMarkovChain(dist.Distribution):
    """x_1 ~ N(initial_loc, initial_precision^-1), x_{t+1} | x_t ~ N(F x_t + offset, precision^-1), as one site.

    With a gate the dynamics switch: step t takes those of its state, and its log density is
    sum_k gate_tk log N(x_{t+1}; F_k x_t + offset_k, precision_k^-1). That is affine in the gate, so that inference may
    put probabilities in the place of the one-hot vectors.

    Args:
        initial_loc: mean of x_1, shape (*batch, L).
        initial_precision: precision of x_1, symmetric positive definite, shape (*batch, L, L).
        transition: F, shape (*batch, L, L); with a gate (*batch, K, L, L).
        precision: of the steps' noise, symmetric positive definite, of the same shape as F.
        length: T >= 2.
        offset: shape (*batch, L), with a gate (*batch, K, L); by default zero.
        gate: one-hot vectors of the T - 1 steps, shape (*batch, T-1, K); by default all steps have the same dynamics.

    Values are (*batch, T, L). The batch shapes must broadcast.

    Raises:
        InputError: if the arrays do not agree on L or K, the gate is not of the length, or the length is below 2.
        ValueError: with `validate_args`, if a precision is not positive definite.
    """

    arg_constraints = {
        "initial_loc": constraints.real_vector,
        "initial_precision": constraints.positive_definite,
        "transition": constraints.real_matrix,
        "precision": constraints.positive_definite,
        "offset": constraints.real_vector,
    }
    support = constraints.real_matrix  # type: ignore[assignment]
    pytree_data_fields = ("initial_loc", "initial_precision", "transition", "precision", "offset", "gate")
    pytree_aux_fields = ("length",)

    def __init__(
        self,
        initial_loc: Array,
        initial_precision: Array,
        transition: Array,
        precision: Array,
        length: int,
        *,
        offset: Array | None = None,
        gate: Array | None = None,
        validate_args: bool | None = None,
    ):
        self.length = whole_number("length", length, 2)
        self.initial_loc = initial_loc
        self.initial_precision = initial_precision
        self.transition = transition
        self.precision = precision
        self.offset = jnp.zeros_like(transition[..., 0]) if offset is None else offset
        self.gate = gate
        self._check_sizes()
        states = 0 if gate is None else 1
        batch_shape = common_batch(
            initial_loc=initial_loc.shape[:-1],
            initial_precision=initial_precision.shape[:-2],
            transition=transition.shape[: transition.ndim - 2 - states],
            precision=precision.shape[: precision.ndim - 2 - states],
            offset=self.offset.shape[: self.offset.ndim - 1 - states],
            gate=() if gate is None else gate.shape[:-2],
        )
        super().__init__(batch_shape, (self.length, initial_loc.shape[-1]), validate_args=validate_args)

    def _check_sizes(self) -> None:
        check_square("transition", self.transition)
        size = self.transition.shape[-1]
        states = () if self.gate is None else self.gate.shape[-1:]
        expected = {
            "initial_loc": (size,),
            "initial_precision": (size, size),
            "transition": (*states, size, size),
            "precision": (*states, size, size),
            "offset": (*states, size),
        }
        if self.gate is not None:
            expected["gate"] = (self.length - 1, *states)
        for name, shape in expected.items():
            actual = getattr(self, name).shape
            if actual[max(len(actual) - len(shape), 0) :] != shape:
                of_states = "" if self.gate is None else f" of {self.gate.shape[-1]} states"
                raise InputError(
                    f"{name} must end in {shape}, as transition has {size} columns and the chain {self.length - 1} "
                    f"steps{of_states}, got shape {actual}."
                )

    @validate_sample
    def log_prob(self, value):
        initial = _log_normal(value[..., 0, :] - self.initial_loc, self.initial_precision)
        log_normalizer = _half_log_determinant(self.precision) - self.event_shape[-1] / 2 * log(2 * pi)
        weight, scatter = self._scatter(value)
        steps = weight * log_normalizer - (self.precision * scatter).sum((-2, -1)) / 2
        return initial + (steps if self.gate is None else steps.sum(-1))

    def _scatter(self, value: Array) -> tuple[Array | int, Array]:
        """The number of steps and the sum of the outer products of their residuals, with a gate of each state.

        Residuals are those at the present transition and offset, a change of which (zero, but not so its derivatives)
        meets sums of products: second derivatives need one pass over the steps, not one for each entry, and nothing
        cancels as between raw moments.
        """
        ones = jnp.ones_like(value[..., :-1, :1])
        regressors, current = jnp.concatenate([value[..., :-1, :], ones], -1), value[..., 1:, :]
        coefficients = jnp.concatenate([self.transition, self.offset[..., None]], -1)
        present = jax.lax.stop_gradient(coefficients)
        change = coefficients - present
        if self.gate is None:
            residual = current - _product("...ij,...tj->...ti", present, regressors)
            weight, scatter = self.length - 1, _product("...ti,...tj->...ij", residual, residual)
            first = _product("...ti,...tj->...ij", residual, regressors)
            second = _product("...ti,...tj->...ij", regressors, regressors)
        else:
            residual = current[..., None, :, :] - _product("...kij,...tj->...kti", present, regressors)
            weight = self.gate.sum(-2)
            weighted = jnp.swapaxes(self.gate, -1, -2)[..., None] * residual
            scatter = _product("...kti,...ktj->...kij", weighted, residual)
            first = _product("...kti,...tj->...kij", weighted, regressors)
            second = _product("...tk,...ti,...tj->...kij", self.gate, regressors, regressors)
        half_second = _product("...ij,...jk->...ik", change, second) / 2
        moved = _product("...ij,...kj->...ik", first - half_second, change)
        return weight, scatter - moved - jnp.swapaxes(moved, -1, -2)

    def sample(self, key, sample_shape=()):
        assert key is not None
        noise = jax.random.normal(key, self.shape(sample_shape), self.initial_loc.dtype)
        first = self.initial_loc + _coloured(self.initial_precision, noise[..., :1, :])[..., 0, :]
        if self.gate is None:
            innovations = self.offset[..., None, :] + _coloured(self.precision, noise[..., 1:, :])
        else:
            states = self.offset[..., None, :] + _coloured(self.precision, noise[..., None, 1:, :])
            innovations = _product("...tk,...kti->...ti", self.gate, states)

        def step(previous, inputs):
            gate, innovation = inputs
            current = _product("...ij,...j->...i", self._transition_at(gate), previous) + innovation
            return current, current

        _, rest = jax.lax.scan(step, first, (self._gate_by_step(), jnp.moveaxis(innovations, -2, 0)))
        return jnp.concatenate([first[..., None, :], jnp.moveaxis(rest, 0, -2)], -2)

    @property
    def mean(self):
        """E[x_t], shape (*batch, T, L); here and below the gate must be one-hot."""
        return self._moments()[0]

    @property
    def variance(self):
        """The variance of each entry of each x_t, shape (*batch, T, L)."""
        return jnp.diagonal(self._moments()[1], axis1=-2, axis2=-1)

    def _moments(self) -> tuple[Float[Array, "*batch t l"], Float[Array, "*batch t l l"]]:
        """Means and covariances at each time, by the forward recursion."""
        size = self.event_shape[-1]
        covariances = _inverse(self.precision)

        def step(previous, gate):
            mean, covariance = previous
            transition = self._transition_at(gate)
            offset = self.offset if gate is None else _product("...k,...ki->...i", gate, self.offset)
            noise = covariances if gate is None else _product("...k,...kij->...ij", gate, covariances)
            mean = _product("...ij,...j->...i", transition, mean) + offset
            covariance = _product("...ij,...jk,...lk->...il", transition, covariance, transition) + noise
            return (mean, covariance), (mean, covariance)

        loc = jnp.broadcast_to(self.initial_loc, (*self.batch_shape, size))
        covariance = jnp.broadcast_to(_inverse(self.initial_precision), (*self.batch_shape, size, size))
        _, (means, rest) = jax.lax.scan(step, (loc, covariance), self._gate_by_step(), self.length - 1)
        means = jnp.concatenate([loc[None], means])
        return jnp.moveaxis(means, 0, -2), jnp.moveaxis(jnp.concatenate([covariance[None], rest]), 0, -3)

    def _gate_by_step(self) -> Array | None:
        return None if self.gate is None else jnp.moveaxis(self.gate, -2, 0)

    def _transition_at(self, gate: Array | None) -> Array:
        return self.transition if gate is None else _product("...k,...kij->...ij", gate, self.transition)


def _product(subscripts: str, *operands: Array) -> Array:
    # A GPU's default ten-bit mantissa does not survive a long recursion.
    return jnp.einsum(subscripts, *operands, precision="highest")


def _log_normal(residual: Float[Array, "*batch l"], precision: Float[Array, "*#batch l l"]) -> Float[Array, "*batch"]:
    """log N(residual; 0, precision^-1), its quadratic part linear in the precision."""
    quadratic = _product("...i,...ij,...j->...", residual, precision, residual)
    return _half_log_determinant(precision) - quadratic / 2 - residual.shape[-1] / 2 * log(2 * pi)


def _half_log_determinant(matrix: Float[Array, "*batch l l"]) -> Float[Array, "*batch"]:
    factor = jnp.linalg.cholesky(matrix)
    return jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)


def _coloured(precision: Float[Array, "*#batch l l"], noise: Float[Array, "*#batch n l"]) -> Float[Array, "*batch n l"]:
    """White noise given the covariance precision^-1: n draws of each, as columns of one solve."""
    batch = jnp.broadcast_shapes(precision.shape[:-2], noise.shape[:-2])
    factor = jnp.broadcast_to(jnp.linalg.cholesky(precision), (*batch, *precision.shape[-2:]))
    columns = jnp.broadcast_to(jnp.swapaxes(noise, -1, -2), (*batch, *noise.shape[:-3:-1]))
    return jnp.swapaxes(solve_triangular(factor, columns, trans=1, lower=True), -1, -2)


def _inverse(precision: Array) -> Array:
    identity = jnp.broadcast_to(jnp.eye(precision.shape[-1], dtype=precision.dtype), precision.shape)
    return cho_solve((jnp.linalg.cholesky(precision), True), identity)
