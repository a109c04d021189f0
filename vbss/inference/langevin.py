"""Langevin dynamics: steps along the gradient with noise, as they are or accepted as Metropolis and Hastings do."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vbss.errors import positive
from vbss.inference.kernel import Kernel
from vbss.inference.metropolis import WalkingChains, accepted
from vbss.inference.separable import Elements, check_separable
from vbss.inference.target import Target


class DriftingChains(NamedTuple):
    """States of Langevin dynamics; `gradient` is that of the log density at `z`."""

    z: Float[Array, "chains size"]
    gradient: Float[Array, "chains size"]
    potential_energy: Float[Array, " chains"]
    diverging: Bool[Array, " chains"]
    rng_key: Array


class Langevin(Kernel):
    """z' = z + step_size grad log p(z) + sqrt(2 step_size) N(0, I), never rejected.

    The chains' distribution is near the posterior, not equal: the larger the step, the wider. Many chains in parallel
    give as many draws in one step.

    Source: Welling and Teh, "Bayesian learning via stochastic gradient Langevin dynamics" (2011); Sadeghi and Serizel,
    "Posterior sampling algorithms for unsupervised speech enhancement with recurrent variational autoencoder" (2023).

    Args:
        step_size: in unconstrained coordinates.
    """

    step_size: float = eqx.field(static=True)

    def __init__(self, step_size: float = 5e-3):
        self.step_size = positive("Langevin: step_size", step_size)

    def owns(self, chains):
        return isinstance(chains, DriftingChains)

    def begin(self, target, positions, key):
        keys = jax.random.split(key, len(positions))
        energies, gradients = _energies_and_gradients(target, positions)
        return DriftingChains(positions, gradients, energies, jnp.zeros_like(energies) > 0, keys)

    def draw(self, target, chains):
        noise, keys = _noise(chains)
        z = chains.z + self.step_size * chains.gradient + (2 * self.step_size) ** 0.5 * noise
        energies, gradients = _energies_and_gradients(target, z)
        return DriftingChains(z, gradients, energies, ~jnp.isfinite(energies), keys)

    def moved(self, target, chains):
        energies, gradients = _energies_and_gradients(target, chains.z)
        return chains._replace(gradient=gradients, potential_energy=energies)


class AdjustedChains(NamedTuple):
    """States of adjusted Langevin dynamics: `gradient` is that of the log density at `walk.z`."""

    walk: WalkingChains
    gradient: Float[Array, "chains size"]

    @property
    def z(self) -> Float[Array, "chains size"]:
        return self.walk.z

    @property
    def potential_energy(self) -> Float[Array, " chains"]:
        return self.walk.potential_energy

    @property
    def diverging(self) -> Bool[Array, " chains"]:
        return self.walk.diverging


class MALA(Kernel):
    """Langevin steps, accepted as Metropolis and Hastings do, so that the posterior is left as it is.

    Source: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations"
    (1996).

    Args:
        step_size: in unconstrained coordinates. Where positions are long and accepted as a whole it must be small.
        plate: whose elements are accepted by themselves, as in `Metropolis`; by default the whole position is.
    """

    step_size: float = eqx.field(static=True)
    plate: str | None = eqx.field(static=True)

    def __init__(self, step_size: float = 5e-3, plate: str | None = None):
        self.step_size, self.plate = positive("MALA: step_size", step_size), plate

    def owns(self, chains):
        is_adjusted = isinstance(chains, AdjustedChains)
        return is_adjusted and (chains.walk.log_densities.shape[1] == 1) == (self.plate is None)

    def check(self, target, positions, key):
        if self.plate is not None:
            check_separable(target, self.plate, positions[0], key)

    def begin(self, target, positions, key):
        log_densities, gradients = _densities_and_gradients(Elements.of(target, self.plate), positions)
        zeros = jnp.zeros(len(positions), positions.dtype)
        keys = jax.random.split(key, len(positions))
        walk = WalkingChains(positions, log_densities, -log_densities.sum(-1), zeros, zeros > 0, keys)
        return AdjustedChains(walk, gradients)

    def draw(self, target, chains):
        elements = Elements.of(target, self.plate)
        return jax.vmap(lambda chain: self._drawn(elements, chain))(chains)

    def moved(self, target, chains):
        log_densities, gradients = _densities_and_gradients(Elements.of(target, self.plate), chains.z)
        walk = chains.walk._replace(log_densities=log_densities, potential_energy=-log_densities.sum(-1))
        return AdjustedChains(walk, gradients)

    def _drawn(self, elements: Elements, chain: AdjustedChains) -> AdjustedChains:
        walk = chain.walk
        key_walk, key_accept, key = jax.random.split(walk.rng_key, 3)
        noise = jax.random.normal(key_walk, walk.z.shape, walk.z.dtype)
        z = walk.z + self.step_size * chain.gradient + (2 * self.step_size) ** 0.5 * noise
        (log_densities,), (gradient,) = _densities_and_gradients(elements, z[None])
        back = (walk.z - z - self.step_size * gradient) ** 2 / (4 * self.step_size)
        asymmetry = noise**2 / 2 - back
        log_asymmetry = jnp.zeros_like(log_densities).at[elements.places].add(asymmetry)
        moved = accepted(elements, walk, z, log_densities, log_asymmetry, key_accept)
        return AdjustedChains(moved._replace(rng_key=key), jnp.where(moved.z == z, gradient, chain.gradient))


def _noise(chains: DriftingChains) -> tuple[Float[Array, "chains size"], Array]:
    keys = jax.vmap(jax.random.split)(chains.rng_key)
    shape, dtype = chains.z.shape[1:], chains.z.dtype
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys[:, 0]), keys[:, 1]


def _energies_and_gradients(
    target: Target, positions: Float[Array, "chains size"]
) -> tuple[Float[Array, " chains"], Float[Array, "chains size"]]:
    log_densities, gradients = jax.vmap(jax.value_and_grad(target.log_density))(positions)
    return -log_densities, gradients


def _densities_and_gradients(
    elements: Elements, positions: Float[Array, "chains size"]
) -> tuple[Float[Array, "chains elements"], Float[Array, "chains size"]]:
    """Of elements that do not depend on each other, the gradient of their sum is that of each."""

    def of_position(position: Array) -> tuple[Array, Array]:
        log_densities, pull = jax.vjp(elements.log_densities, position)
        return log_densities, pull(jnp.ones_like(log_densities))[0]

    return jax.vmap(of_position)(positions)
