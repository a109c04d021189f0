"""Stochastic variational inference by NumPyro: any of its guides and bounds, any optimiser of optax.

The model's parameters and points are params of the program that NumPyro sees, in unconstrained coordinates; its
discrete latents are summed out exactly beforehand, so that guides meet continuous ones alone.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax.example_libraries.optimizers import Optimizer
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.svi import SVIState as NumPyroState
from numpyro.optim import _NumPyroOptim

from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.errors import InputError, whole_number
from vbss.expectation import Observations
from vbss.factors import Values
from vbss.inference.algorithm import Algorithm, Start, check_frozen, names_of
from vbss.inference.collapsed import Collapsed, collapse, state_probabilities
from vbss.inference.guides import Guide, check_guide, guide_draws, guide_of, is_automatic, normal_marginals
from vbss.inference.stopping import Plateau
from vbss.kinds import Kind
from vbss.posteriors import AbstractPosterior
from vbss.posteriors.guided import GuidePosterior

_DRAWS_OF_START = 64  # whose mean is taken where the posterior of another inference is the start


class SVIState(eqx.Module):
    """Where the inference stands.

    Attributes:
        numpyro: the params of the guide and of the program, the optimiser's state and the key of the next draws.
        points: the program's points, as they were at the start where they are not learnt.
    """

    numpyro: NumPyroState
    points: dict[str, Array]


class SVI(Algorithm):
    """Gradient ascent on a stochastic bound, with respect to a guide, the model's parameters and its points.

    `Solution.elbo` is the noisy bound of each step. Compiled programs are kept for an object of this class: use one for
    many data of the same shapes.

    Args:
        guide: a class of `numpyro.infer.autoguide` (by default `AutoNormal`), `functools.partial` of one with its
            settings, an object of one (whose model is replaced by the program), or a function of the program's
            arguments that draws the program's continuous latents.
        elbo: of `numpyro.infer`, by default `Trace_ELBO()`. One that deals with discrete latents itself
            (`TraceEnum_ELBO`, which needs funsor, and `TraceGraph_ELBO`) gets the program with them.
        optimizer: of optax or of NumPyro, by default `optax.adam(1e-2)`.
        num_samples: draws from the guide that the posterior keeps.
        tolerance, window: of the `Plateau` at which the noisy bound is taken to have ended.
        frozen: parameters and points that stay as they are.
    """

    guide: Any
    elbo: ELBO
    optimizer: Any
    num_samples: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    window: int = eqx.field(static=True)
    frozen: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        guide: Any = None,
        elbo: Any = None,
        optimizer: Any = None,
        *,
        num_samples: int = 1000,
        tolerance: float = 3e-3,
        window: int = 50,
        frozen: Iterable[str] = (),
    ):
        import optax  # slow to import, and the command line has no use for it

        self.guide = AutoNormal if guide is None else guide
        self.elbo = _default_elbo() if elbo is None else elbo
        self.optimizer = _default_optimizer() if optimizer is None else optimizer
        check_guide(self.guide)
        if not isinstance(self.elbo, ELBO):
            raise InputError(f"SVI: elbo must be one of numpyro.infer such as Trace_ELBO(), got {type(elbo).__name__}")
        if not isinstance(self.optimizer, optax.GradientTransformation | _NumPyroOptim | Optimizer):
            raise InputError(f"SVI: optimizer must be one of optax or NumPyro, got {type(optimizer).__name__}")
        self.num_samples = whole_number("SVI: num_samples", num_samples, 1)
        self.tolerance, self.window, self.frozen = tolerance, window, names_of(frozen)
        Plateau(tolerance, window)  # which checks both

    @property
    def default_steps(self):
        return 5000

    @property
    def rule(self):
        return Plateau(self.tolerance, self.window)

    def begin(self, model, data, start, key):
        key_read, key_start, key_state = jax.random.split(key, 3)
        collapsed = collapse(model, data, key_read, probes=not self.elbo.can_infer_discrete)
        check_frozen(self.frozen, model, {name: None for name, _, _ in collapsed.kinds})
        values = _start_values(collapsed, start, key_start)
        collapsed = collapsed.with_points({name: v for name, v in values.items() if name in collapsed.points})
        state = _begin(self, collapsed, self._observe(collapsed), values, key_state)
        return SVIState(state, collapsed.points)

    def owns(self, state):
        return isinstance(state, SVIState)

    def constants(self, model, state, data):
        collapsed = collapse(model, data, jax.random.key(0), state.points, probes=False)
        return collapsed, self._observe(collapsed)

    def step(self, model, state, data, constants):
        collapsed, observations = constants
        collapsed = collapsed.with_model(model)
        inference, _ = self._inference(collapsed, observations)
        with relaxed_promotion():
            moved, loss = inference.update(state.numpyro, *data)
            collapsed = self._learnt(collapsed, inference.get_params(moved))
        return collapsed.model, SVIState(moved, collapsed.points), -loss

    def posterior(self, model, state, data):
        collapsed, observations = self.constants(model, state, data)
        return _posterior(self, collapsed, observations, state.numpyro)

    def _sums_out(self, collapsed: Collapsed) -> bool:
        return bool(collapsed.factors) and not self.elbo.can_infer_discrete

    def _observe(self, collapsed: Collapsed) -> Observations:
        return collapsed.observe() if self._sums_out(collapsed) else {}

    def _kinds(self, collapsed: Collapsed) -> dict[str, Kind]:
        """The kinds of the parameters and points that are params of the program."""
        kinds = collapsed.model.parameter_kinds() | {name: kind for name, kind, _ in collapsed.kinds}
        return {name: kind for name, kind in kinds.items() if name not in self.frozen}

    def _learnt(self, collapsed: Collapsed, params: Values) -> Collapsed:
        """With the parameters and points that NumPyro's params say."""
        values = {name: kind.constrain(params[_param(name)]) for name, kind in self._kinds(collapsed).items()}
        points = {name: v for name, v in (params | values).items() if name in collapsed.points}
        parameters = {name: v for name, v in values.items() if name not in points}
        return collapsed.with_model(collapsed.model.replace(**parameters)).with_points(points)

    def _inference(
        self, collapsed: Collapsed, observations: Observations, values: Values | None = None, key: Array | None = None
    ) -> tuple[NumPyroSVI, NumPyroState]:
        """NumPyro's inference, ready to update, and the state that it begins with.

        NumPyro's inference and its automatic guides learn of the program in their first run and keep what they learn,
        tracers of JAX among it. So they are made anew in each trace; of that run nothing is left once compiled.
        """
        program = self._program(collapsed, observations)
        guide: Guide = guide_of(self.guide, program, values or {})
        if is_automatic(guide) and not collapsed.continuous:
            guide = _nothing
        inference = NumPyroSVI(program, guide, self.optimizer, self.elbo)
        with relaxed_promotion():
            state = inference.init(jax.random.key(0) if key is None else key, *collapsed.data)
        return inference, state

    def _program(self, collapsed: Collapsed, observations: Observations) -> Callable:
        """The program that NumPyro sees."""

        def program(*data: Any) -> None:
            params = {}
            for name, kind in self._kinds(collapsed).items():
                value = collapsed.points[name] if name in collapsed.points else getattr(collapsed.model, name)
                params[_param(name)] = numpyro.param(_param(name), kind.unconstrain(value))
            learnt = self._learnt(collapsed, params)
            if self._sums_out(collapsed):
                _summed_out(learnt, observations, data)
                return
            points = {name: learnt.points[name] for name, _, _ in learnt.kinds}
            with handlers.block(hide=list(points)), handlers.substitute(data=points):
                learnt.model(*data)

        if isinstance(self.elbo, TraceEnum_ELBO):
            from numpyro.contrib.funsor import config_enumerate

            return config_enumerate(program, default="parallel")
        return program


@cache
def _default_elbo() -> ELBO:
    return Trace_ELBO()


@cache
def _default_optimizer() -> Any:
    import optax

    return optax.adam(1e-2)


def _param(name: str) -> str:
    """The name of NumPyro's param of a parameter or point."""
    return f"{name}_unconstrained"


def _nothing(*data: Any) -> None:
    """The guide where no latent is left."""


def _summed_out(collapsed: Collapsed, observations: Observations, data: tuple) -> None:
    """The program of the continuous latents: they are drawn as in the model, in their plates."""
    latents = collapsed.continuous
    rest = {name: collapsed.points[name] for name, _, _ in collapsed.kinds}
    for factor in collapsed.factors.values():
        rest |= factor.representative()

    def is_hidden(site: dict) -> bool:
        is_site = site["type"] in ("sample", "deterministic", "param")
        return is_site and (site["name"] in rest or site["type"] != "param") and site["name"] not in latents

    with numpyro.validation_enabled(False):
        with handlers.block(hide_fn=is_hidden):
            trace = handlers.trace(handlers.substitute(collapsed.model, rest)).get_trace(*data)
        values = {name: site["value"] for name, site in trace.items() if site["type"] == "param" or name in latents}
        log_prior = jnp.zeros(())
        for site in (trace[name] for name in latents):
            log_prob = site["fn"].log_prob(site["value"]).sum()
            log_prior = log_prior + (log_prob if site["scale"] is None else site["scale"] * log_prob)
        with handlers.block():
            log_density = collapsed.log_density(values, observations)
    # What NumPyro adds for the sites themselves is in the density already.
    numpyro.factor("log_density_given_latents", log_density - log_prior)


def _start_values(collapsed: Collapsed, start: Start, key: Array) -> Values:
    """Values of continuous latents and points to begin with.

    Raises:
        InputError: if a site is neither, or has another shape.
    """
    shapes = eqx.filter_eval_shape(collapsed.initial, key) | collapsed.points
    if start is None:
        given = collapsed.model.start(key, *collapsed.data)
        given = {name: value for name, value in given.items() if name in shapes}
    elif isinstance(start, AbstractPosterior):
        draws = start.sample(key, _DRAWS_OF_START)
        given = {name: value.mean(0) for name, value in draws.items() if name in shapes}
        given |= {name: start[name] for name in collapsed.points if name in start}
    else:
        given = {name: jnp.asarray(value) for name, value in start.items()}
    for name, value in given.items():
        if name not in shapes:
            raise InputError(
                f"start: {name!r} is not a continuous latent or point of the program; it has {sorted(shapes)}"
            )
        if value.shape != shapes[name].shape:
            raise InputError(f"start: {name!r} must have shape {shapes[name].shape}, got {value.shape}")
    return {name: jnp.asarray(value, shapes[name].dtype) for name, value in given.items()}


@compiled
def _begin(
    algorithm: SVI, collapsed: Collapsed, observations: Observations, values: Values, key: Array
) -> NumPyroState:
    return algorithm._inference(collapsed, observations, values, key)[1]


@compiled
def _posterior(algorithm: SVI, collapsed: Collapsed, observations: Observations, state: NumPyroState) -> GuidePosterior:
    """Draws from the guide, and the discrete latents given each."""
    inference, _ = algorithm._inference(collapsed, observations)
    key_guide, key_discrete = jax.random.split(state.rng_key)
    with relaxed_promotion():
        params = inference.get_params(state)
        draws = guide_draws(inference.guide, params, collapsed.data, key_guide, algorithm.num_samples)
        draws = {name: draws[name] for name in collapsed.continuous if name in draws}
        normals, event_ranks = normal_marginals(inference.guide, params, collapsed.data)
    probabilities = {}
    if algorithm._sums_out(collapsed):
        states, probabilities = _discrete(collapsed, draws, observations, key_discrete, algorithm.num_samples)
        draws |= states
    return GuidePosterior(draws, probabilities, normals, event_ranks, collapsed.points)


def _discrete(
    collapsed: Collapsed, draws: Values, observations: Observations, key: Array, num_samples: int
) -> tuple[Values, Values]:
    """Draws of the discrete latents given those of the continuous ones, and their averaged probabilities."""

    def step(total: Values, inputs: tuple[Values, Array]) -> tuple[Values, Values]:
        states, probabilities = collapsed.discrete(inputs[0], observations, inputs[1])
        return jax.tree.map(jnp.add, total, probabilities), states

    total = {name: jnp.zeros_like(state_probabilities(factor, name)) for name, factor in collapsed.factors.items()}
    total, states = jax.lax.scan(step, total, (draws, jax.random.split(key, num_samples)))
    return states, {name: probabilities / num_samples for name, probabilities in total.items()}
