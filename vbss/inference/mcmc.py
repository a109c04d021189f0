"""Markov chain Monte Carlo on the log density of the continuous latents, with all discrete ones summed out exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vbss.errors import InputError, whole_number
from vbss.inference.algorithm import Algorithm
from vbss.inference.nuts import NUTS, Chains
from vbss.inference.stopping import Completed
from vbss.inference.unconstrained import sampled_posterior, starting_chains, starting_points, unconstrained


class MCMCState(eqx.Module):
    """Where the chains stand.

    Attributes:
        chains: states of the kernel.
        draws: the latest draws in unconstrained coordinates, draw i at place i modulo their number.
        is_divergent: whether the trajectories to these draws went astray.
        num_steps: draws taken, those of the warm-up included.
        points: the program's points, at the values at which they are held.
    """

    chains: Chains
    draws: Float[Array, "chains draws size"]
    is_divergent: Bool[Array, "chains draws"]
    num_steps: Int[Array, ""]
    points: dict[str, Array]


class MCMC(Algorithm):
    """Draws from the exact posterior by NumPyro's No-U-Turn sampler (NUTS).

    The chains move in the continuous latents; indicators and Markov chains are summed out exactly at every point of
    their way, and their probabilities averaged over the draws. Parameters of the model and points of the program are
    held at their values: learn them first by `EM()` or `MonteCarloEM()` and pass that solution as `start`, or give them
    priors, as latent sites.

    A step of `fit` is one draw of every chain. The first `num_warmup` steps adapt the kernel and are not kept, then
    `num_draws` are, and the run has `converged` when they are complete. `fit(..., max_steps=)` only cuts it short.
    `progress` counts both, and Ctrl-C keeps the draws so far. A complete run that
    goes on (`start=solution`) replaces its oldest draws.

    `solution.elbo` is no bound here but the log density of the draws of each step, warm-up included, mean over the
    chains, in the unconstrained coordinates: a trace to look at. `solution.posterior` is a `SampledPosterior`, with
    `samples` and a `summary()`. The default start is random, uniform on (-2, 2) in the unconstrained coordinates; from
    the posterior of another inference it is a draw for each chain.

    Args:
        num_warmup: draws that adapt step sizes and mass matrices.
        num_draws: draws of each chain that are kept.
        num_chains: independent chains, run as one batch.
        target_accept: mean acceptance probability that step sizes are adapted to; raise it against divergences.
        max_tree_depth: a draw takes at most 2^max_tree_depth gradients.
    """

    num_warmup: int = eqx.field(static=True)
    num_draws: int = eqx.field(static=True)
    num_chains: int = eqx.field(static=True)
    target_accept: float = eqx.field(static=True)
    max_tree_depth: int = eqx.field(static=True)
    frozen: tuple[str, ...] = eqx.field(static=True)

    judges_end = False
    moves_on = False

    def __init__(
        self,
        num_warmup: int = 500,
        num_draws: int = 1000,
        *,
        num_chains: int = 4,
        target_accept: float = 0.8,
        max_tree_depth: int = 10,
    ):
        self.num_warmup = whole_number("MCMC: num_warmup", num_warmup, 0)
        self.num_draws = whole_number("MCMC: num_draws", num_draws, 1)
        self.num_chains = whole_number("MCMC: num_chains", num_chains, 1)
        if not 0 < target_accept < 1:
            raise InputError(f"MCMC: target_accept must be between 0 and 1, got {target_accept}")
        self.target_accept = target_accept
        self.max_tree_depth = whole_number("MCMC: max_tree_depth", max_tree_depth, 1)
        self.frozen = ()

    @property
    def rule(self):
        return Completed(self.num_warmup + self.num_draws)

    @property
    def default_steps(self):
        return self.num_warmup + self.num_draws

    @property
    def _kernel(self) -> NUTS:
        return NUTS(self.num_warmup, self.target_accept, self.max_tree_depth)

    def begin(self, model, data, start, key):
        key_target, key_chains = jax.random.split(key)
        target = unconstrained(model, data, starting_points(start), key_target, probes=True)
        if target.size == 0:
            raise InputError(
                f"{type(model).__name__} has no continuous latent to draw: parameters and points are held, discrete "
                "latents are summed out. Infer with vbss.EM, or give parameters priors as latent sites."
            )
        chains = starting_chains(self._kernel, target, start, self.num_chains, key_chains)
        draws = jnp.zeros((self.num_chains, self.num_draws, target.size), chains.z.dtype)
        is_divergent = jnp.zeros((self.num_chains, self.num_draws), bool)
        return MCMCState(chains, draws, is_divergent, jnp.int32(0), target.collapsed.points)

    def owns(self, state):
        return isinstance(state, MCMCState) and state.is_divergent.shape == (self.num_chains, self.num_draws)

    def constants(self, model, state, data):
        return unconstrained(model, data, state.points, jax.random.key(0), probes=False)

    def step(self, model, state, data, constants):
        chains = self._kernel.draw(constants, state.chains)
        kept = state.num_steps - self.num_warmup
        place = jnp.where(kept < 0, self.num_draws, kept % self.num_draws)  # outside while warming up
        draws = state.draws.at[:, place].set(chains.z, mode="drop")
        is_divergent = state.is_divergent.at[:, place].set(chains.diverging, mode="drop")
        state = MCMCState(chains, draws, is_divergent, state.num_steps + 1, state.points)
        return model, state, -chains.potential_energy.mean()

    def posterior(self, model, state, data):
        kept = max(int(state.num_steps) - self.num_warmup, 0)
        oldest = kept % self.num_draws if kept > self.num_draws else 0
        target = unconstrained(model, data, state.points, jax.random.key(0), probes=False)
        key = jax.random.fold_in(state.chains.rng_key[0], state.num_steps)
        draws = jnp.roll(state.draws, -oldest, 1)
        return sampled_posterior(target, draws, min(kept, self.num_draws), state.is_divergent, key)
