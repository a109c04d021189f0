"""The Metropolis algorithm: random walks, accepted as a whole or each element of a plate by itself."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vbss.errors import positive
from vbss.inference.kernel import Kernel
from vbss.inference.separable import Elements, check_separable


class WalkingChains(NamedTuple):
    """States of a kernel that accepts or rejects.

    Attributes:
        z: positions.
        log_densities: there, of each element of the plate, or their sum alone.
        potential_energy: minus their sum.
        accept_prob: the last transition's acceptance, mean over elements.
        diverging: never true.
        rng_key: of the next draws.
    """

    z: Float[Array, "chains size"]
    log_densities: Float[Array, "chains elements"]
    potential_energy: Float[Array, " chains"]
    accept_prob: Float[Array, " chains"]
    diverging: Bool[Array, " chains"]
    rng_key: Array


class Metropolis(Kernel):
    """z' = z + scale N(0, I), accepted with probability min(1, p(z') / p(z)).

    With a plate, each of its elements (a frame) is accepted by itself, which is the same as one Metropolis chain for
    each element and much faster: allowed where the density is a product over them, which is tested. A decoder that
    looks at several frames couples them, and acceptance by frames would leave a wrong distribution invariant.

    Source: Metropolis et al., "Equation of state calculations by fast computing machines" (1953); by frames as in
    Leglaive, Girin and Horaud (2018), whose variance of the walk is 0.01.

    Args:
        scale: standard deviation of the walk, in unconstrained coordinates.
        plate: whose elements are accepted by themselves; by default the whole position is.
    """

    scale: float = eqx.field(static=True)
    plate: str | None = eqx.field(static=True)

    def __init__(self, scale: float = 0.1, plate: str | None = None):
        self.scale, self.plate = positive("Metropolis: scale", scale), plate

    def owns(self, chains):
        return isinstance(chains, WalkingChains) and (chains.log_densities.shape[1] == 1) == (self.plate is None)

    def check(self, target, positions, key):
        if self.plate is not None:
            check_separable(target, self.plate, positions[0], key)

    def begin(self, target, positions, key):
        num_chains = len(positions)
        log_densities = jax.vmap(Elements.of(target, self.plate).log_densities)(positions)
        zeros = jnp.zeros(num_chains, positions.dtype)
        keys = jax.random.split(key, num_chains)
        return WalkingChains(positions, log_densities, -log_densities.sum(-1), zeros, zeros > 0, keys)

    def draw(self, target, chains):
        elements = Elements.of(target, self.plate)
        return jax.vmap(lambda chain: self._drawn(elements, chain))(chains)

    def moved(self, target, chains):
        log_densities = jax.vmap(Elements.of(target, self.plate).log_densities)(chains.z)
        return chains._replace(log_densities=log_densities, potential_energy=-log_densities.sum(-1))

    def _drawn(self, elements: Elements, chain: WalkingChains) -> WalkingChains:
        key_walk, key_accept, key = jax.random.split(chain.rng_key, 3)
        z = chain.z + self.scale * jax.random.normal(key_walk, chain.z.shape, chain.z.dtype)
        return accepted(elements, chain, z, elements.log_densities(z), jnp.zeros(()), key_accept)._replace(rng_key=key)


def accepted(
    elements: Elements,
    chain: WalkingChains,
    z: Float[Array, " size"],
    log_densities: Float[Array, " elements"],
    log_asymmetry: Float[Array, "*elements"],
    key: Array,
) -> WalkingChains:
    """A chain after it was proposed to go to z, each element with its own probability.

    Args:
        log_asymmetry: log density of proposing the way back less that of the way there, of each element.
    """
    log_ratio = log_densities - chain.log_densities + log_asymmetry.astype(log_densities.dtype)
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    uniform = jax.random.uniform(key, log_ratio.shape, log_ratio.dtype)
    is_accepted = jnp.log(uniform) < log_ratio
    log_densities = jnp.where(is_accepted, log_densities, chain.log_densities)
    return chain._replace(
        z=jnp.where(is_accepted[elements.places], z, chain.z),
        log_densities=log_densities,
        potential_energy=-log_densities.sum(),
        accept_prob=jnp.exp(jnp.minimum(log_ratio, 0)).mean(),
    )
