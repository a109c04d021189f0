"""Stochastic variational inference by natural gradients, and online EM, on minibatches of a plate.

The optimum of a block is a set of coefficients read from the program (natural parameters of a factor, coefficients of
a parameter's statistics), in which a natural-gradient step of size rho is a convex combination: eta <- (1 - rho) eta +
rho eta_hat, with eta_hat estimated from a minibatch. Source: Hoffman, Blei, Wang and Paisley, "Stochastic variational
inference" (2013); Cappe and Moulines, "On-line expectation-maximization algorithm for latent data models" (2009).
"""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vbss import expectation
from vbss.errors import InputError, whole_number
from vbss.factorization import Blocks
from vbss.inference.algorithm import Algorithm
from vbss.inference.em import EM
from vbss.inference.minibatch import Weighted, check_plate, cut, cut_factors, local_blocks, plate_size, put_back
from vbss.inference.step_size import StepSize, stepped, towards
from vbss.inference.stopping import Plateau
from vbss.kinds import ReadKind
from vbss.posteriors import Posterior
from vbss.program import Model


class NaturalGradientState(eqx.Module):
    """Where the inference stands.

    Attributes:
        posterior: q; factors of the minibatched plate hold what was last inferred of each element.
        coefficients: running coefficients of the parameters' statistics.
        num_steps: steps taken.
        key: of the next minibatch.
    """

    posterior: Posterior
    coefficients: dict[str, Any]
    num_steps: Int[Array, ""]
    key: Array


class NaturalGradient(Algorithm):
    """Steps of size rho towards every block's optimum, from all data or from random minibatches of a plate.

    Factors of latents inside the plate are set to their optimum for the minibatch; factors outside and running
    coefficients of the parameters take a step of rho_n = step_size (1 + n / delay)^-forgetting. Without a plate, as it
    stands, this is `EM`; its bound is judged as a noisy one.

    Args:
        batch_size: elements of the plate in a minibatch; None takes all.
        plate: name of the plate; every argument of the program whose first axis has the plate's size is cut along it,
            so the plate must be outermost and its elements independent given the sites outside it.
        step_size, delay, forgetting: of rho_n, in (0, 1], > 0, and 0 or in (0.5, 1]; by default steps shrink with
            minibatches (0.7) and not without (0). A constant step ends in a noise floor.
        local_sweeps: passes over the factors inside the plate for one minibatch.
        tolerance, window: of the `Plateau` at which the noisy bound is taken to have ended.
        blocks, at_mode, frozen, probes: as for `EM`.
    """

    batch_size: int | None = eqx.field(static=True)
    plate: str | None = eqx.field(static=True)
    step_size: float = eqx.field(static=True)
    delay: float = eqx.field(static=True)
    forgetting: float = eqx.field(static=True)
    local_sweeps: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    window: int = eqx.field(static=True)
    blocks: Blocks | None = eqx.field(static=True)
    at_mode: tuple[str, ...] | None = eqx.field(static=True)
    frozen: tuple[str, ...] = eqx.field(static=True)
    probes: bool | None = eqx.field(static=True)

    def __init__(
        self,
        batch_size: int | None = None,
        plate: str | None = None,
        *,
        step_size: float = 1.0,
        delay: float = 10.0,
        forgetting: float | None = None,
        local_sweeps: int = 1,
        tolerance: float = 3e-3,
        window: int = 50,
        blocks: Iterable[Iterable[str]] | None = None,
        at_mode: Iterable[str] | None = None,
        frozen: Iterable[str] = (),
        probes: bool | None = None,
    ):
        if (batch_size is None) != (plate is None):
            raise InputError("NaturalGradient: batch_size and plate belong together: give both or none")
        if batch_size is not None:
            whole_number("NaturalGradient: batch_size", batch_size, 1)
        self.batch_size, self.plate = batch_size, plate
        self.step_size, self.delay = step_size, delay
        self.forgetting = (0.0 if plate is None else 0.7) if forgetting is None else forgetting
        self.local_sweeps = whole_number("NaturalGradient: local_sweeps", local_sweeps, 1)
        self.tolerance, self.window = tolerance, window
        _ = self._steps, self.rule  # which check their settings
        em = EM(blocks=blocks, at_mode=at_mode, frozen=frozen)
        self.blocks, self.at_mode, self.frozen, self.probes = em.blocks, em.at_mode, em.frozen, probes

    @property
    def rule(self):
        return Plateau(self.tolerance, self.window)

    @property
    def _steps(self) -> StepSize:
        return StepSize("NaturalGradient", self.step_size, self.delay, self.forgetting)

    @property
    def default_steps(self):
        return 1000

    @property
    def _ascent(self) -> EM:
        """The coordinate ascent whose updates are stepped towards."""
        return EM(updates="derived", blocks=self.blocks, at_mode=self.at_mode, frozen=self.frozen, probes=self.probes)

    def begin(self, model, data, start, key):
        key, key_start = jax.random.split(key)
        posterior = self._ascent.begin(model, data, start, key_start)
        if self.plate is not None:
            assert self.batch_size is not None
            check_plate(model, posterior, data, self.plate, self.batch_size)
        zeros = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype), eqx.filter_eval_shape(_coefficients, model, posterior, data)
        )
        return NaturalGradientState(posterior, zeros, jnp.int32(0), key)

    def owns(self, state):
        return isinstance(state, NaturalGradientState)

    def check_state(self, model, state, data):
        self._ascent.check_state(model, state.posterior, data)

    def posterior(self, model, state, data):
        return state.posterior

    def step(self, model, state, data, constants):
        key, key_batch = jax.random.split(state.key)
        whole, local, weight, batch, taken = state.posterior, (), 1.0, data, None
        if self.plate is not None:
            assert self.batch_size is not None
            size = plate_size(model, whole, data, self.plate)
            local, weight = local_blocks(model, whole, data, self.plate), size / self.batch_size
            taken = jax.random.randint(key_batch, (self.batch_size,), 0, size)
            batch = cut(data, taken, size)
        posterior = whole if taken is None else cut_factors(whole, local, taken)
        observations = expectation.observe(model, posterior, batch)
        for _ in range(self.local_sweeps):
            for block in local:
                _, posterior = expectation.derived_update(model, posterior, batch, block, observations)
        weighted = Weighted(model, self.plate or "", weight)
        bound = expectation.expected_log_joint(weighted, posterior, batch, observations)
        for key_factor, factor in posterior.factors.items():
            bound = bound + (weight if key_factor in local else 1.0) * factor.entropy()
        rho = self._steps.at(state.num_steps, bound.dtype)
        coefficients = dict(state.coefficients)
        for block in self._ascent.schedule(model, posterior):
            if block in local:
                continue
            if block in posterior.factors:
                objective = expectation.block_objective(weighted, posterior, batch, block, observations)
                factor = posterior.factors[block]
                natural = towards(factor.canonical(), factor.update(objective).canonical(), rho)
                posterior = posterior.with_factor(block, factor.with_natural(natural))
                continue
            kind, value, objective = expectation.unknown_objective(weighted, posterior, batch, block, observations)
            value, average = stepped(kind, objective, value, coefficients.get(block), rho)
            if average is not None:
                coefficients[block] = average
            stepped_model, posterior = expectation.with_unknown(weighted, posterior, block, value)
            assert isinstance(stepped_model, Weighted)
            weighted = stepped_model
        if taken is not None:
            posterior = put_back(whole, posterior, local, taken)
        return weighted.unweighted, NaturalGradientState(posterior, coefficients, state.num_steps + 1, key), bound


def _coefficients(model: Model, posterior: Posterior, data: tuple) -> dict[str, Any]:
    """The coefficients of all read unknowns."""
    observations = expectation.observe(model, posterior, data)
    found = {}
    for block in (*posterior.points, *model.parameter_kinds()):
        kind, value, objective = expectation.unknown_objective(model, posterior, data, block, observations)
        if isinstance(kind, ReadKind):
            found[block] = kind.coefficients(objective, value)
    return found
