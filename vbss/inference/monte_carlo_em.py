"""Expectation maximisation whose expectations over continuous latents are averages over draws.

E-step: some transitions of Markov chains on the density given the current parameters, discrete latents summed out; the
chains go on where they were. M-step: the coefficients of each parameter's statistics in E[log p], averaged over the
chains, exactly over the discrete latents, and over the steps with a decreasing weight. Source: Delyon, Lavielle and
Moulines, "Convergence of a stochastic approximation version of the EM algorithm" (1999); Kuhn and Lavielle, "Coupling a
stochastic approximation version of EM with an MCMC procedure" (2004).
"""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vbss import expectation
from vbss.compilation import compiled
from vbss.errors import whole_number
from vbss.factors import Factor, Values
from vbss.inference.algorithm import Algorithm, check_frozen, names_of
from vbss.inference.nuts import NUTS, Chains
from vbss.inference.step_size import StepSize, stepped
from vbss.inference.stopping import Steady
from vbss.inference.unconstrained import (
    Unconstrained,
    sampled_posterior,
    starting_chains,
    starting_points,
    unconstrained,
)
from vbss.kinds import Kind, ReadKind
from vbss.probes import is_proven, probe
from vbss.program import Model

_ENDLESS = 10**9  # steps of warm-up: the density that the chains are adapted to moves with the parameters
_TARGET_ACCEPT = 0.8
_MAX_TREE_DEPTH = 6


class MonteCarloEMState(eqx.Module):
    """Where the inference stands.

    Attributes:
        chains: states of the kernel; None where the program has no continuous latents.
        points: the program's points.
        coefficients: running coefficients of the unknowns' statistics.
        num_steps: steps taken.
        key: of the discrete latents that the posterior draws.
    """

    chains: Chains | None
    points: dict[str, Array]
    coefficients: dict[str, Any]
    num_steps: Int[Array, ""]
    key: Array


class MonteCarloEM(Algorithm):
    """Maximum likelihood (or a-posteriori) parameters where the E-step has no closed form, by stochastic approximation.

    Continuous latents are drawn by NumPyro's No-U-Turn sampler from their exact posterior, discrete ones are summed out
    exactly; without continuous latents this is exact EM. Step n gives the draws of now the weight rho_n = step_size (1
    + n / delay)^-forgetting, and those of all steps before the rest (in the coefficients of the unknowns' statistics).

    `solution.elbo` holds the log density of the chains' positions, their mean, in unconstrained coordinates: no bound,
    but steady when the parameters are. Without continuous latents it is the log likelihood. `solution.posterior` is a
    `SampledPosterior` of the chains' last positions (run `MCMC()` with `start=solution` for more draws), and without
    continuous latents the exact `Posterior`.

    Args:
        num_chains: parallel chains, each of which gives a draw to every E-step.
        num_kernel_steps: transitions of a chain between two draws.
        step_size, delay, forgetting: of rho_n, in (0, 1], > 0, and 0 or in (0.5, 1]. A constant weight ends in a noise
            floor.
        tolerance, window: of the `Steady` at which the log density is taken to have settled.
        frozen: parameters and points that stay as they are.
    """

    num_chains: int = eqx.field(static=True)
    num_kernel_steps: int = eqx.field(static=True)
    step_size: float = eqx.field(static=True)
    delay: float = eqx.field(static=True)
    forgetting: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    window: int = eqx.field(static=True)
    frozen: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        num_chains: int = 10,
        *,
        num_kernel_steps: int = 1,
        step_size: float = 1.0,
        delay: float = 20.0,
        forgetting: float = 0.8,
        tolerance: float = 3e-3,
        window: int = 50,
        frozen: Iterable[str] = (),
    ):
        self.num_chains = whole_number("MonteCarloEM: num_chains", num_chains, 1)
        self.num_kernel_steps = whole_number("MonteCarloEM: num_kernel_steps", num_kernel_steps, 1)
        self.step_size, self.delay, self.forgetting = step_size, delay, forgetting
        self.tolerance, self.window = tolerance, window
        self.frozen = names_of(frozen)
        _ = self._steps, self.rule  # which check their settings

    @property
    def default_steps(self):
        return 500

    @property
    def rule(self):
        return Steady(self.tolerance, self.window)

    @property
    def _steps(self) -> StepSize:
        return StepSize("MonteCarloEM", self.step_size, self.delay, self.forgetting)

    @property
    def _kernel(self) -> NUTS:
        return NUTS(_ENDLESS, _TARGET_ACCEPT, _MAX_TREE_DEPTH)

    def begin(self, model, data, start, key):
        key, key_target, key_chains, key_probe = jax.random.split(key, 4)
        target = unconstrained(model, data, starting_points(start), key_target, probes=True)
        collapsed = target.collapsed
        check_frozen(self.frozen, model, collapsed.points)
        posterior = collapsed.at(collapsed.initial(key_probe))
        if not is_proven(model):
            probe(model, posterior, data, key_probe, self._unknowns(model, target))
        chains = starting_chains(self._kernel, target, start, self.num_chains, key_chains) if target.size else None
        shapes = eqx.filter_eval_shape(self._coefficients, model, target, data, chains)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return MonteCarloEMState(chains, collapsed.points, zeros, jnp.int32(0), key)

    def owns(self, state):
        if not isinstance(state, MonteCarloEMState):
            return False
        return state.chains is None or state.chains.z.shape[0] == self.num_chains

    def constants(self, model, state, data):
        return unconstrained(model, data, state.points, jax.random.key(0), probes=False)

    def step(self, model, state, data, constants):
        target = constants.at(model, state.points)
        if state.chains is None:
            bound, chains = target.collapsed.log_density({}, target.observations), None
            rho = jnp.ones((), bound.dtype)
        else:
            chains = self._kernel.moved(target.log_density, state.chains)
            bound = -chains.potential_energy.mean()
            rho = self._steps.at(state.num_steps, bound.dtype)
            chains, _ = jax.lax.scan(
                lambda c, _: (self._kernel.draw(target.log_density, c), None), chains, None, self.num_kernel_steps
            )
        values, factors = self._draws(target, chains)
        coefficients = dict(state.coefficients)
        points = dict(target.collapsed.points)
        for block in self._unknowns(model, target):
            kind, value, objective = _unknown(model, target.at(model, points), data, block, values, factors)
            value, average = stepped(kind, objective, value, coefficients.get(block), rho)
            if average is not None:
                coefficients[block] = average
            if block in points:
                points[block] = value
            else:
                model = model.replace(**{block: value})
        return model, MonteCarloEMState(chains, points, coefficients, state.num_steps + 1, state.key), bound

    def posterior(self, model, state, data):
        target = unconstrained(model, data, state.points, jax.random.key(0), probes=False)
        if state.chains is None:
            return _conditional(target)
        key = jax.random.fold_in(state.key, state.num_steps)
        return sampled_posterior(target, state.chains.z[:, None], 1, state.chains.diverging[:, None], key)

    def _unknowns(self, model: Model, target: Unconstrained) -> tuple[str, ...]:
        """What is learnt, in the order in which a step visits it."""
        known = [*(name for name, _, _ in target.collapsed.kinds), *model.parameter_kinds()]
        order = [name for name in model.schedule or () if name in known]
        return tuple(name for name in (order or known) if name not in self.frozen)

    def _draws(self, target: Unconstrained, chains: Chains | None) -> tuple[Values, dict[str, Factor]]:
        """Draws of the continuous latents and the discrete ones' posterior given each, with a leading axis of draws."""

        def of_chain(values: Values) -> tuple[Values, dict[str, Factor]]:
            return values, target.collapsed.conditional(values, target.observations).factors

        if chains is None:
            return jax.tree.map(lambda leaf: leaf[None], of_chain({}))
        return jax.vmap(lambda position: of_chain(target.values(position)))(chains.z)

    def _coefficients(
        self, model: Model, target: Unconstrained, data: tuple, chains: Chains | None
    ) -> dict[str, dict[str, Array]]:
        """The coefficients of all read unknowns."""
        values, factors = self._draws(target, chains)
        found = {}
        for block in self._unknowns(model, target):
            kind, value, objective = _unknown(model, target, data, block, values, factors)
            if isinstance(kind, ReadKind):
                found[block] = kind.coefficients(objective, value)
        return found


def _unknown(
    model: Model, target: Unconstrained, data: tuple, block: str, values: Values, factors: dict[str, Factor]
) -> tuple[Kind, Array, Callable[[Array], Float[Array, ""]]]:
    """A point or parameter: its kind, its value, and E[log p] as a function of it, the mean over draws."""
    size = next((leaf.shape[0] for leaf in jax.tree.leaves((values, factors))), 1)

    def of_draw(draw: tuple[Values, dict[str, Factor]]) -> tuple[Kind, Array, Callable]:
        posterior = target.collapsed.at(*draw)
        return expectation.unknown_objective(model, posterior, data, block, target.observations)

    kind, value, _ = of_draw(jax.tree.map(lambda leaf: leaf[0], (values, factors)))

    def objective(value: Array) -> Float[Array, ""]:
        # Of as many draws as there are even where no latent is left to draw.
        return jax.vmap(lambda _, draw: of_draw(draw)[2](value))(jnp.arange(size), (values, factors)).mean()

    return kind, value, objective


@compiled
def _conditional(target: Unconstrained) -> Any:
    return target.collapsed.conditional({}, target.observations)
