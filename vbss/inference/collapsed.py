"""A program with its discrete latents summed out exactly, for algorithms that move the continuous ones.

At given values of the continuous latents the factor of a discrete one has its exact conditional as its optimum, and the
bound is the log density: log p(y, x) = E_q[log p(y, x, z)] + H(q), if the discrete latents do not interact.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer import init_to_uniform

from vbss import expectation
from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.distributions import Indicator, MarkovChain
from vbss.errors import InputError
from vbss.expectation import Observations
from vbss.factors import Factor, StatisticsFactor, Values
from vbss.families import statistics_family
from vbss.inference.target import SiteDensity
from vbss.kinds import Kind
from vbss.posteriors import Posterior
from vbss.probes import elsewhere, is_proven, probe
from vbss.program import Given, Model, unexpanded, unmasked


class Collapsed(eqx.Module):
    """The log density of a program's continuous latents, its discrete ones summed out; made by `collapse`.

    Values are {site: array} of the continuous latents in the shapes of the program's draws, and of those points that
    are not where `points` has them. Gradients pass through values and through the model's parameters.

    Attributes:
        model, data: the program and its arguments.
        factors: of each discrete latent, in some state.
        points: the program's points and other params, at their initial values.
        kinds: of the points: name, kind, and the indicator that it is given.
        continuous: names of the continuous latents, in the order of the program.
        states: for each latent in `vbss.Given` its name, the axis of its states and their number.
    """

    model: Model
    data: tuple
    factors: dict[str, Factor]
    points: dict[str, Array]
    kinds: tuple[tuple[str, Kind, str | None], ...] = eqx.field(static=True)
    continuous: tuple[str, ...] = eqx.field(static=True)
    states: tuple[tuple[str, int, int], ...] = eqx.field(static=True)

    def with_model(self, model: Model) -> "Collapsed":
        """The same at other parameters."""
        return eqx.tree_at(lambda collapsed: collapsed.model, self, model)

    def with_points(self, points: Mapping[str, Array]) -> "Collapsed":
        """The same with some points at other values."""
        return eqx.tree_at(lambda collapsed: collapsed.points, self, {**self.points, **points})

    def observe(self) -> Observations:
        """The statistics of the gated observations, which depend on the data alone."""
        return _observe(self, self.initial(jax.random.key(0)))

    def conditional(self, values: Mapping[str, Array], observations: Observations) -> Posterior:
        """The discrete latents' exact posterior given the continuous ones, which it holds as points."""
        posterior = self.at(values)
        for name, factor in self.factors.items():
            objective = expectation.block_objective(self.model, posterior, self.data, name, observations)
            posterior = posterior.with_factor(name, factor.update(objective))
        return posterior

    def log_density(self, values: Mapping[str, Array], observations: Observations) -> Float[Array, ""]:
        """log p(y, values), exact and differentiable to any order."""
        return _log_density(self, dict(values), observations)

    def sites(self, values: Mapping[str, Array]) -> dict[str, SiteDensity]:
        """What each site adds to the log density of a program without discrete latents."""
        program = handlers.substitute(self.model, {**self.points, **values})
        found = {}
        with relaxed_promotion(), numpyro.validation_enabled(False), handlers.block():
            for name, site in handlers.trace(program).get_trace(*self.data).items():
                if site["type"] != "sample":
                    continue
                fn, mask = unmasked(site["fn"])
                log_prob = jnp.broadcast_to(fn.log_prob(site["value"]), fn.batch_shape)
                log_prob = log_prob if mask is None else jnp.where(mask, log_prob, 0)
                log_prob = log_prob if site["scale"] is None else site["scale"] * log_prob
                support: Any = fn.support
                while isinstance(support, constraints.independent):
                    support = support.base_constraint
                frames = tuple(site["cond_indep_stack"])
                ranks = len(fn.batch_shape), len(fn.event_shape)
                found[name] = SiteDensity(log_prob, frames, support, *ranks, site["is_observed"])
        return found

    def discrete(
        self, values: Mapping[str, Array], observations: Observations, key: Array
    ) -> tuple[Values, dict[str, Array]]:
        """A joint draw of the discrete latents given the continuous ones, and their states' probabilities, last."""
        states: Values = {}
        probabilities = {}
        for name, factor in self.conditional(values, observations).factors.items():
            key, key_factor = jax.random.split(key)
            states |= {site: state.astype(jnp.int32) for site, state in factor.sample(key_factor).items()}
            probabilities[name] = state_probabilities(factor, name)
        return states, probabilities

    def initial(self, key: Array) -> Values:
        """Random values of the continuous latents: uniform on (-2, 2) in unconstrained coordinates."""
        return _initial(self, key)

    def constrain(self, unconstrained: Mapping[str, Array]) -> tuple[Values, Float[Array, ""]]:
        """Values at unconstrained real coordinates, and the log-determinant of the Jacobian, to add to the density."""
        values: Values = {}
        log_determinants: list[Array] = []

        def placed(site: dict) -> Array | None:
            if site["type"] != "sample" or site["name"] not in self.continuous:
                return None
            coordinates = unconstrained[site["name"]]
            transform = biject_to(site["fn"].support)
            value = transform(coordinates)
            values[site["name"]] = value
            log_determinants.append(transform.log_abs_det_jacobian(coordinates, value).sum())
            return value

        self._run(placed)
        return values, jnp.stack(log_determinants).sum() if log_determinants else jnp.zeros(())

    def unconstrain(self, values: Mapping[str, Array]) -> Values:
        """The unconstrained real coordinates of values."""
        coordinates: Values = {}

        def read(site: dict) -> Array | None:
            if site["type"] != "sample" or site["name"] not in self.continuous:
                return None
            coordinates[site["name"]] = biject_to(site["fn"].support).inv(values[site["name"]])
            return values[site["name"]]

        self._run(read)
        return coordinates

    def _run(self, substitute: Any) -> None:
        """Run the program with its continuous latents as the function says, the rest in some state."""
        rest = dict(self.points)
        for factor in self.factors.values():
            rest |= factor.representative()
        program = handlers.substitute(handlers.substitute(self.model, rest), substitute_fn=substitute)
        with relaxed_promotion(), numpyro.validation_enabled(False), handlers.block():
            handlers.trace(program).get_trace(*self.data)

    def at(self, values: Mapping[str, Array], factors: dict[str, Factor] | None = None) -> Posterior:
        """A posterior with these values as points, and its factors as they are where no others are given."""
        points = {**self.points, **values}
        for name, axis, size in self.states:
            # The same value under every state, as the program reads it.
            if points[name].shape[axis] != size:
                points[name] = jnp.repeat(points[name], size, axis)
        factors = self.factors if factors is None else factors
        return Posterior(factors, points, self.kinds, (*factors, *(name for name, _, _ in self.kinds)))


def collapse(
    model: Model, data: tuple, key: Array, start: Mapping[str, Array] | None = None, *, probes: bool = True
) -> Collapsed:
    """Sum a program's discrete latents out.

    Args:
        start: values of points to begin with.
        probes: test what is taken for granted: the density is linear in the states of each discrete latent, and they
            do not interact. Untested, a discrete latent that cannot be summed out is left to the program.

    Raises:
        InputError: for a discrete latent that is scaled or not a `vbss.indicator` or `vbss.markov_chain`, or discrete
            latents that interact, naming them.
        ProgramError: for a density that is not linear in the states of a discrete latent.
    """
    key_read, key_values, key_probe = jax.random.split(key, 3)
    *layout, refused = _read(model, data, key_read)
    collapsed = Collapsed(model, data, *layout)
    if start:
        collapsed = collapsed.with_points(start)
    if probes and refused:
        raise InputError(refused[0])
    if probes and collapsed.factors:
        values = collapsed.initial(key_values)
        if not is_proven(model):
            probe(model, collapsed.at(values), data, key_probe, tuple(collapsed.factors))
        if len(collapsed.factors) > 1:
            _check_interactions(collapsed, values, collapsed.observe(), key_probe)
    return collapsed


def state_probabilities(factor: Factor, name: str) -> Float[Array, "*shape k"]:
    """The marginal probabilities of a discrete latent's states, which stand last."""
    marginal: Any = factor.distributions()[name]
    return marginal.probs


@compiled
def _read(model: Model, data: tuple, key: Array) -> tuple:
    """What `Collapsed` holds beside the model and the data, and why discrete latents cannot be summed out."""
    trace = _initial_trace(model, data, key)
    factors: dict[str, Factor] = {}
    continuous, states, refused = [], [], []
    for name, site in trace.items():
        if site["type"] != "sample" or site["is_observed"] or site["value"] is None:
            continue
        fn: Any = unmasked(site["fn"])[0]
        base = unexpanded(fn)
        if not fn.support.is_discrete:
            continuous.append(name)
            if isinstance(base, Given):
                states.append((name, -1 - len(base.base.event_shape), base.gate.shape[-1]))
            continue
        family = statistics_family(base)
        if not isinstance(base, Indicator | MarkovChain) or family is None:
            refused.append(
                f"latent site {name!r} is {type(base).__name__}, a discrete distribution that cannot be summed out: "
                "draw it with vbss.indicator or vbss.markov_chain"
            )
            continue
        if site["scale"] is not None:
            refused.append(
                f"latent site {name!r} is scaled, by handlers.scale or a subsampled plate: discrete latents may not be"
            )
        statistics = {key: trace[f"{name}/{key}"]["value"] for key in base.sufficient_statistics(site["value"])}
        factors[name] = StatisticsFactor(jax.tree.map(jnp.zeros_like, statistics), family, name)
    params = {name: site for name, site in trace.items() if site["type"] == "param"}
    kinds = tuple(
        (name, site["kwargs"]["kind"], site["kwargs"].get("given"))
        for name, site in params.items()
        if "kind" in site["kwargs"]
    )
    points = {name: site["value"] for name, site in params.items()}
    return factors, points, kinds, tuple(continuous), tuple(states), tuple(refused)


def _initial_trace(model: Model, data: tuple, key: Array) -> dict:
    """NumPyro's trace at random values of the continuous latents, those of priors that cannot be drawn from too."""

    program = handlers.substitute(handlers.seed(model, key), substitute_fn=init_to_uniform)
    with relaxed_promotion(), numpyro.validation_enabled(False), handlers.block():
        return handlers.trace(program).get_trace(*data)


@compiled
def _initial(collapsed: Collapsed, key: Array) -> Values:
    trace = _initial_trace(collapsed.model, collapsed.data, key)
    return {name: jnp.asarray(trace[name]["value"]) for name in collapsed.continuous}


@compiled
def _observe(collapsed: Collapsed, values: Values) -> Observations:
    return expectation.observe(collapsed.model, collapsed.at(values), collapsed.data)


@eqx.filter_custom_jvp
def _log_density(collapsed: Collapsed, values: Values, observations: Observations) -> Float[Array, ""]:
    posterior = collapsed.conditional(values, observations)
    return expectation.elbo(collapsed.model, posterior, collapsed.data, observations)


@_log_density.def_jvp
def _(primals, tangents):
    # At its optimum the bound does not move with q: the first derivative needs none of the update's. That this rule is
    # itself differentiable makes the higher derivatives exact.
    collapsed, values, observations = primals
    factors = collapsed.conditional(values, observations).factors

    def bound(collapsed: Collapsed, values: Values, observations: Observations) -> Array:
        posterior = collapsed.at(values, factors)
        return expectation.elbo(collapsed.model, posterior, collapsed.data, observations)

    return eqx.filter_jvp(bound, primals, tangents)


def _check_interactions(collapsed: Collapsed, values: Values, observations: Observations, key: Array) -> None:
    """Raise InputError where one discrete latent's conditional depends on the state of another."""
    for first, others in _interactions(collapsed, values, observations, key).items():
        for second, change in others.items():
            if not float(change) <= float(jnp.finfo(change.dtype).eps) ** (1 / 3):
                raise InputError(
                    f"discrete latents {first!r} and {second!r} interact, so that they cannot be summed out each on "
                    "its own: join them in one vbss.indicator over all pairs of states, or infer with vbss.EM"
                )


@compiled
def _interactions(
    collapsed: Collapsed, values: Values, observations: Observations, key: Array
) -> dict[str, dict[str, Float[Array, ""]]]:
    """How far the coefficients of each discrete latent move, relative to their size, when another's state does."""
    names = list(collapsed.factors)
    # All else at random, so that no special value hides a product.
    model, others = elsewhere(collapsed.model, collapsed.at(values), key)
    found: dict[str, dict[str, Array]] = {}
    for number, first in enumerate(names):
        found[first] = {}
        for second in names[number + 1 :]:
            natural = []
            for key_state in jax.random.split(key):
                moved = others.with_factor(second, others.factors[second].perturbed(key_state))
                objective = expectation.block_objective(model, moved, collapsed.data, first, observations)
                natural.append(moved.factors[first].update(objective).canonical())
            changes = jax.tree.leaves(jax.tree.map(_relative_change, *natural))
            found[first][second] = jnp.stack(changes).max()
    return found


def _relative_change(before: Array, after: Array) -> Float[Array, ""]:
    size = jnp.maximum(jnp.abs(before), jnp.abs(after))
    scale = size + float(jnp.finfo(size.dtype).eps) ** 0.5 * size.max()
    return (jnp.abs(after - before) / jnp.where(scale == 0, 1, scale)).max()
