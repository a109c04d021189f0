"""Expectation maximisation whose expectations over continuous latents are averages over draws.

E-step: some transitions of Markov chains on the density given the current parameters, discrete latents summed out; the
chains go on where they were. M-step: the coefficients of each parameter's statistics in E[log p], averaged over the
chains, exactly over the discrete latents, and over the steps with a decreasing weight. Source: Delyon, Lavielle and
Moulines, "Convergence of a stochastic approximation version of the EM algorithm" (1999); Kuhn and Lavielle, "Coupling a
stochastic approximation version of EM with an MCMC procedure" (2004).
"""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vbss.compilation import compiled
from vbss.errors import InputError, whole_number
from vbss.inference.algorithm import names_of
from vbss.inference.kernel import Kernel
from vbss.inference.nuts import NUTS
from vbss.inference.sampled_em import SampledEM
from vbss.inference.sampled_step import draws_at, improved, unknowns
from vbss.inference.unconstrained import Unconstrained, sampled_posterior, starting_chains, unconstrained

_ENDLESS = 10**9  # steps of warm-up: the density that the chains are adapted to moves with the parameters
_TARGET_ACCEPT = 0.8
_MAX_TREE_DEPTH = 6


class MonteCarloEMState(eqx.Module):
    """Where the inference stands.

    Attributes:
        chains: states of the kernel; None where the program has no continuous latents.
        draws: those that the last E-step kept, in unconstrained coordinates; None likewise.
        points: the program's points.
        coefficients: running coefficients of the unknowns' statistics.
        num_steps: steps taken.
        key: of the discrete latents that the posterior draws.
    """

    chains: Any
    draws: Float[Array, "chains kept size"] | None
    points: dict[str, Array]
    coefficients: dict[str, Any]
    num_steps: Int[Array, ""]
    key: Array


class MonteCarloEM(SampledEM):
    """Maximum likelihood (or a-posteriori) parameters where the E-step has no closed form, by stochastic approximation.

    Continuous latents are drawn by a kernel (by default NumPyro's No-U-Turn sampler) from their exact posterior,
    discrete ones are summed out exactly; without continuous latents this is exact EM. Step n gives the draws of now the
    weight rho_n = step_size (1 + n / delay)^-forgetting, and those of all steps before the rest (in the coefficients of
    the unknowns' statistics).

    `solution.elbo` holds the log density of the chains' positions, their mean, in unconstrained coordinates: no bound,
    but steady when the parameters are. Without continuous latents it is the log likelihood. `solution.posterior` is a
    `SampledPosterior` of the draws of the last step (run `MCMC()` with `start=solution` for more), and without
    continuous latents the exact `Posterior`.

    Chains begin at random, or where the model's `start` says.

    Args:
        num_chains: parallel chains, each of which gives its draws to every E-step.
        kernel: what moves them: `Metropolis`, `Langevin`, `MALA`, or `Ascent`, which climbs to the most probable place
            in the draws' stead; by default the No-U-Turn sampler, whose step size adapts.
        num_kernel_steps: transitions of a chain in a step.
        num_kept: after how many of the last of them a draw is kept.
        step_size, delay, forgetting: of rho_n, in (0, 1], > 0, and 0 or in (0.5, 1]. A constant weight ends in a noise
            floor.
        tolerance, window: of the `Steady` at which the log density is taken to have settled.
        frozen: parameters and points that stay as they are.
    """

    num_chains: int = eqx.field(static=True)
    kernel: Kernel
    num_kernel_steps: int = eqx.field(static=True)
    num_kept: int = eqx.field(static=True)
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
        kernel: Kernel | None = None,
        num_kernel_steps: int = 1,
        num_kept: int = 1,
        step_size: float = 1.0,
        delay: float = 20.0,
        forgetting: float = 0.8,
        tolerance: float = 3e-3,
        window: int = 50,
        frozen: Iterable[str] = (),
    ):
        self.num_chains = whole_number("MonteCarloEM: num_chains", num_chains, 1)
        self.kernel = NUTS(_ENDLESS, _TARGET_ACCEPT, _MAX_TREE_DEPTH) if kernel is None else kernel
        if not isinstance(self.kernel, Kernel):
            raise InputError(f"MonteCarloEM: kernel must be one such as Metropolis(), got {type(kernel).__name__}")
        self.num_kernel_steps = whole_number("MonteCarloEM: num_kernel_steps", num_kernel_steps, 1)
        self.num_kept = whole_number("MonteCarloEM: num_kept", num_kept, 1, self.num_kernel_steps)
        self.step_size, self.delay, self.forgetting = step_size, delay, forgetting
        self.tolerance, self.window = tolerance, window
        self.frozen = names_of(frozen)
        _ = self._steps, self.rule  # which check their settings

    @property
    def default_steps(self):
        return 500

    def begin(self, model, data, start, key):
        key, key_target, key_chains, key_probe, key_start = jax.random.split(key, 5)
        start, target = self._begun(model, data, start, (key_target, key_probe, key_start))
        chains, draws = None, None
        if target.size:
            chains = starting_chains(self.kernel, target, start, self.num_chains, key_chains)
            draws = jnp.repeat(chains.z[:, None], self.num_kept, 1)
        zeros = self._no_coefficients(model, target, data, lambda target: draws_at(target, _merged(draws)))
        return MonteCarloEMState(chains, draws, target.collapsed.points, zeros, jnp.int32(0), key)

    def owns(self, state):
        if not isinstance(state, MonteCarloEMState):
            return False
        if state.draws is None:
            return True
        return state.draws.shape[:2] == (self.num_chains, self.num_kept) and self.kernel.owns(state.chains)

    def step(self, model, state, data, constants):
        target = constants.at(model, state.points)
        chains, draws = state.chains, state.draws
        if draws is None:
            bound = target.collapsed.log_density({}, target.observations)
            rho = jnp.ones((), bound.dtype)
        else:
            chains = self.kernel.moved(target, chains)
            bound = -chains.potential_energy.mean()
            rho = self._steps.at(state.num_steps, bound.dtype)
            chains, draws = self._drawn(target, chains)
        blocks = unknowns(model, target, self.frozen)
        found = draws_at(target, _merged(draws))
        model, points, coefficients = improved(model, target, data, blocks, found, state.coefficients, rho)
        return model, MonteCarloEMState(chains, draws, points, coefficients, state.num_steps + 1, state.key), bound

    def posterior(self, model, state, data):
        target = unconstrained(model, data, state.points, jax.random.key(0), probes=False)
        if state.draws is None:
            return _conditional(target)
        key = jax.random.fold_in(state.key, state.num_steps)
        return sampled_posterior(target, state.draws, self.num_kept, state.chains.diverging[:, None], key)

    def _drawn(self, target: Unconstrained, chains: Any) -> tuple[Any, Float[Array, "chains kept size"]]:
        """The chains after the transitions of a step, and their positions after the last of them."""

        def moved(chains: Any, _: None) -> tuple[Any, None]:
            return self.kernel.draw(target, chains), None

        def kept(chains: Any, _: None) -> tuple[Any, Array]:
            chains = self.kernel.draw(target, chains)
            return chains, chains.z

        if self.num_kernel_steps > self.num_kept:
            chains, _ = jax.lax.scan(moved, chains, None, self.num_kernel_steps - self.num_kept)
        chains, positions = jax.lax.scan(kept, chains, None, self.num_kept)
        return chains, jnp.swapaxes(positions, 0, 1)


def _merged(draws: Float[Array, "chains kept size"] | None) -> Float[Array, "draws size"] | None:
    return None if draws is None else draws.reshape(-1, draws.shape[-1])


@compiled
def _conditional(target: Unconstrained) -> Any:
    return target.collapsed.conditional({}, target.observations)
