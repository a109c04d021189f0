"""The log density of a program's continuous latents over flat real vectors, as samplers move them."""

from collections.abc import Mapping
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.expectation import Observations
from vbss.factors import Values
from vbss.inference.algorithm import Start
from vbss.inference.collapsed import Collapsed, collapse, state_probabilities
from vbss.inference.kernel import Kernel
from vbss.inference.target import Layout, SiteDensity, Target
from vbss.posteriors import AbstractPosterior
from vbss.posteriors.sampled import SampledPosterior
from vbss.program import Model


class Unconstrained(Target):
    """Positions are vectors of all unconstrained coordinates, in JAX's default precision; made by `unconstrained`.

    Attributes:
        collapsed: the program with its discrete latents summed out, at some parameters and points.
        observations: the statistics of its gated observations.
        layout: name, shape and dtype of each continuous latent's coordinates.
    """

    collapsed: Collapsed
    observations: Observations
    layout: Layout = eqx.field(static=True)

    @property
    def discrete(self) -> tuple[str, ...]:
        """Names of the discrete latents."""
        return tuple(self.collapsed.factors)

    def at(self, model: Model, points: Mapping[str, Array]) -> "Unconstrained":
        """The same at other parameters and points."""
        moved = eqx.tree_at(lambda collapsed: collapsed.points, self.collapsed.with_model(model), dict(points))
        return Unconstrained(collapsed=moved, observations=self.observations, layout=self.layout)

    def log_density(self, position):
        values, log_determinant = self.collapsed.constrain(self._coordinates(position))
        with relaxed_promotion():
            total = self.collapsed.log_density(values, self.observations) + log_determinant
        return total.astype(position.dtype)

    def sites(self, position: Float[Array, " size"]) -> dict[str, SiteDensity]:
        return self.collapsed.sites(self.values(position))

    def values(self, position: Float[Array, " size"]) -> Values:
        """The continuous latents at a position, in the shapes of the program's draws."""
        return self.collapsed.constrain(self._coordinates(position))[0]

    def position(self, values: Values) -> Float[Array, " size"]:
        """Where the continuous latents have these values."""
        coordinates = self.collapsed.unconstrain(values)
        return jnp.concatenate([coordinates[name].reshape(-1).astype(_precision()) for name, _, _ in self.layout])

    def _coordinates(self, position: Float[Array, " size"]) -> dict[str, Array]:
        ends = np.cumsum([prod(shape) for _, shape, _ in self.layout])[:-1]
        parts = jnp.split(position, ends)
        return {
            name: part.reshape(shape).astype(dtype)
            for part, (name, shape, dtype) in zip(parts, self.layout, strict=True)
        }


def _precision() -> jnp.dtype:
    return jnp.zeros(()).dtype


def unconstrained(model: Model, data: tuple, points: Mapping[str, Array], key: Array, *, probes: bool) -> Unconstrained:
    """The log density of a program at its parameters, and at those values of its points that are among `points`.

    Args:
        probes: as for `collapse`, which raises what it says there.

    Raises:
        InputError: if a point has another shape.
    """
    collapsed = collapse(model, data, key, probes=probes)
    held = dict(collapsed.points)
    for name, value in held.items():
        held[name] = jnp.asarray(points.get(name, value), value.dtype)
        if held[name].shape != value.shape:
            raise InputError(f"start: point {name!r} must have shape {value.shape}, got {held[name].shape}")
    shapes = eqx.filter_eval_shape(lambda c, key: c.unconstrain(c.initial(key)), collapsed, key)
    layout = tuple((name, shapes[name].shape, shapes[name].dtype.name) for name in collapsed.continuous)
    return Unconstrained(collapsed=collapsed, observations=collapsed.observe(), layout=layout).at(model, held)


def model_start(model: Model, data: tuple, key: Array) -> Mapping[str, Array]:
    """What the model's own start says of continuous latents and points."""
    given = model.start(key, *data)
    if not given:
        return {}
    collapsed = collapse(model, data, key, probes=False)
    return {name: value for name, value in given.items() if name in (*collapsed.continuous, *collapsed.points)}


def starting_points(start: Start) -> Mapping[str, Array]:
    """What a start says of points: {site: value} may hold some beside the sites."""
    if isinstance(start, AbstractPosterior):
        return getattr(start, "points", {})
    return {} if start is None else start


def starting_chains(kernel: Kernel, target: Unconstrained, start: Start, num_chains: int, key: Array) -> Any:
    """Chains that begin at draws of a posterior, at given values, else at random.

    Raises:
        InputError: if the start names what is not there or has another shape, the log density is not finite there, or
            the kernel cannot move it.
    """
    key_values, key_draws, key_chains = jax.random.split(key, 3)
    values = _random_values(target.collapsed, jax.random.split(key_values, num_chains))
    if isinstance(start, AbstractPosterior):
        given = start.sample(key_draws, num_chains)
        given = {name: value for name, value in given.items() if name in values}
    else:
        points = target.collapsed.points
        given = {name: jnp.asarray(value) for name, value in (start or {}).items() if name not in points}
        given = {name: jnp.broadcast_to(value, (num_chains, *value.shape)) for name, value in given.items()}
    for name, value in given.items():
        if name not in values:
            known = [*values, *target.collapsed.points]
            raise InputError(f"start: {name!r} is not a continuous latent or point of the program; it has {known}")
        if value.shape != values[name].shape:
            raise InputError(f"start: site {name!r} must have shape {values[name].shape[1:]}, got {value.shape[1:]}")
        values[name] = value.astype(values[name].dtype)
    positions = _positions(target, values)
    kernel.check(target, positions, key_draws)
    chains = _begin(kernel, target, positions, key_chains)
    if not bool(jnp.isfinite(chains.potential_energy).all()):
        raise InputError(
            "start: the log density is infinite or nan where the chains begin: give start={site: value} inside the "
            "support, or the solution of another inference"
        )
    return chains


@compiled
def _random_values(collapsed: Collapsed, keys: Array) -> Values:
    return jax.vmap(collapsed.initial)(keys)


@compiled
def _positions(target: Unconstrained, values: Values) -> Float[Array, "chains size"]:
    return jax.vmap(target.position)(values)


@compiled
def _begin(kernel: Kernel, target: Unconstrained, positions: Float[Array, "chains size"], key: Array) -> Any:
    return kernel.begin(target, positions, key)


def sampled_posterior(
    target: Unconstrained, positions: Float[Array, "chains draws size"], num_kept: int, is_divergent: Array, key: Array
) -> SampledPosterior:
    """The posterior that the first `num_kept` draws are of: their values, and the discrete latents given them."""
    samples, probabilities = _sampled(target, positions, jnp.int32(num_kept), key)
    samples = {name: value[:, :num_kept] for name, value in samples.items()}
    return SampledPosterior(samples, probabilities, target.collapsed.points, is_divergent.sum(1))


# Of all places for draws, so that it is compiled once for however many are filled.
@compiled
def _sampled(
    target: Unconstrained, positions: Float[Array, "chains draws size"], num_kept: Int[Array, ""], key: Array
) -> tuple[Values, dict[str, Array]]:
    """All latents at each position, and the discrete ones' probabilities, mean over those kept."""
    chains, draws, _ = positions.shape

    def of_position(position: Array, key: Array) -> tuple[Values, Values]:
        values = target.values(position)
        states, probabilities = target.collapsed.discrete(values, target.observations, key)
        return probabilities, values | states

    def step(total: Values, inputs: tuple[Array, Array, Array]) -> tuple[Values, Values]:
        index, position, key = inputs
        probabilities, samples = jax.vmap(of_position)(position, key)
        return jax.tree.map(lambda t, p: t + jnp.where(index < num_kept, p.sum(0), 0), total, probabilities), samples

    factors = target.collapsed.factors.items()
    total = {name: jnp.zeros_like(state_probabilities(factor, name)) for name, factor in factors}
    inputs = jnp.arange(draws, dtype=jnp.int32), jnp.swapaxes(positions, 0, 1), jax.random.split(key, (draws, chains))
    total, samples = jax.lax.scan(step, total, inputs)
    count = jnp.maximum(chains * num_kept, 1)
    probabilities = {name: value / count.astype(value.dtype) for name, value in total.items()}
    return {name: jnp.swapaxes(value, 0, 1) for name, value in samples.items()}, probabilities
