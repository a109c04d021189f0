"""Expectation maximisation and variational EM: coordinate ascent on the evidence lower bound.

Exact EM and variational EM are one algorithm with different factorisations of q; a program whose posterior factorises
as q does gets the exact one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss import expectation
from vbss.compilation import compiled
from vbss.errors import InputError
from vbss.expectation import Observations
from vbss.factorization import Blocks, default_posterior, initial_posterior, named_blocks
from vbss.inference.algorithm import Algorithm, check_frozen, names_of
from vbss.inference.stopping import Monotone
from vbss.posteriors import Posterior
from vbss.probes import is_proven, probe
from vbss.program import Model

Updates = Literal["auto", "derived", "closed"]


class EM(Algorithm):
    """Coordinate ascent in which every block is set to its exact optimum in turn.

    Args:
        tolerance: stop when the bound changes by less than this fraction of its size, or of the number of data where
            that is larger; 0 never stops.
        updates: "derived" reads every update from the program, "closed" demands the model's hand-derived ones, "auto"
            takes a hand-derived one where the model has it.
        blocks: latent sites that share a factor of q, as in (("z", "x"), ("w",)): disjoint, covering all; by default
            the model's, else read from the program's dependencies.
        at_mode: latent sites kept at their most probable value instead of a distribution; by default the model's.
        frozen: parameters and points that stay as they are.
        probes: test before the first step that the program is what derived updates take for granted; by default for all
            but the models of `vbss.models`, whose own tests have.
    """

    tolerance: float = eqx.field(static=True)
    updates: Updates = eqx.field(static=True)
    blocks: Blocks | None = eqx.field(static=True)
    at_mode: tuple[str, ...] | None = eqx.field(static=True)
    frozen: tuple[str, ...] = eqx.field(static=True)
    probes: bool | None = eqx.field(static=True)

    def __init__(
        self,
        tolerance: float = 1e-6,
        updates: Updates = "auto",
        *,
        blocks: Iterable[Iterable[str]] | None = None,
        at_mode: Iterable[str] | None = None,
        frozen: Iterable[str] = (),
        probes: bool | None = None,
    ):
        if not tolerance >= 0:
            raise InputError(f"EM: tolerance must not be negative, got {tolerance}")
        if updates not in ("auto", "derived", "closed"):
            raise InputError(f"EM: updates must be 'auto', 'derived' or 'closed', got {updates!r}")
        self.tolerance = tolerance
        self.updates = updates
        self.blocks = named_blocks(blocks)
        self.at_mode = None if at_mode is None else names_of(at_mode)
        self.frozen = names_of(frozen)
        self.probes = probes

    @property
    def rule(self):
        return Monotone(self.tolerance)

    def begin(self, model, data, start, key):
        key_start, key_posterior, key_probe = jax.random.split(key, 3)
        if isinstance(start, Posterior):
            self.check_state(model, start, data)
            posterior = start
        else:
            # Of an inference without factors, only the model that it has learnt is gone on from.
            chosen = start if isinstance(start, Mapping) else model.start(key_start, *data)
            chosen = {name: jnp.asarray(value) for name, value in chosen.items()}
            posterior = initial_posterior(model, data, key_posterior, chosen, self.blocks, self.at_mode)
        check_frozen(self.frozen, model, posterior.points)
        is_proved = is_proven(model) and self._is_own(model)
        if not is_proved if self.probes is None else self.probes:
            probe(model, posterior, data, key_probe, self._derived(model, posterior))
        if isinstance(start, Posterior) or model.schedule is not None:
            return posterior
        # A step begins with the parameters, which must not be learnt from a posterior that knows nothing of them.
        given = {posterior.block_of(name) for name in chosen}
        schedule = self.schedule(model, posterior)
        ignorant = tuple(block for block in schedule if block in posterior.order and block not in given)
        has_parameters = bool(model.parameter_kinds())
        return _informed(self, model, posterior, data, ignorant) if ignorant and has_parameters else posterior

    def owns(self, state):
        return isinstance(state, Posterior)

    def check_state(self, model, state, data):
        key = jax.random.key(0)
        expected = eqx.filter_eval_shape(default_posterior, model, data, key, self.blocks, self.at_mode)
        _check_layout(state, expected)
        check_frozen(self.frozen, model, state.points)

    def constants(self, model, state, data):
        return _observe(model, state, data)

    def step(self, model, state, data, constants):
        bound = self.elbo(model, state, data, constants)
        return *self.sweep(model, state, data, constants), bound

    def posterior(self, model, state, data):
        return state

    def schedule(self, model: Model, posterior: Posterior) -> tuple[str, ...]:
        """The blocks in the order in which a step visits them."""
        # Parameters first: their updates and the bound share the posterior's expectations of the step's beginning.
        known = (*model.parameter_kinds(), *posterior.order)
        schedule = known if model.schedule is None else tuple(posterior.block_of(name) for name in model.schedule)
        schedule = tuple(dict.fromkeys(schedule))
        if sorted(schedule) != sorted(known):
            raise InputError(
                f"{type(model).__name__}.schedule must name each of {sorted(known)} once, got {list(schedule)}"
            )
        unknown = set(model.closed_forms()) - {*known, "elbo"}
        if unknown and self.blocks is None and self.at_mode is None:
            raise InputError(
                f"{type(model).__name__}.closed_forms names {sorted(unknown)[0]!r}, but the blocks are {sorted(known)}"
            )
        return tuple(block for block in schedule if block not in self.frozen)

    def _derived(self, model: Model, posterior: Posterior) -> tuple[str, ...]:
        """The blocks whose updates are read from the program."""
        closed = self.closed_forms(model)
        return tuple(block for block in self.schedule(model, posterior) if block not in closed)

    def _is_own(self, model: Model) -> bool:
        """Whether the factorisation is the model's."""
        return self.blocks in (None, model.blocks) and self.at_mode in (None, model.at_mode)

    def closed_forms(self, model: Model) -> dict[str, Any]:
        """The hand-derived updates that are used: those of the model, for its own factorisation."""
        return dict(model.closed_forms()) if self._is_own(model) and self.updates != "derived" else {}

    def sweep(
        self, model: Model, posterior: Posterior, data: tuple, observations: Observations
    ) -> tuple[Model, Posterior]:
        """One pass over the blocks: a pure function of pytrees."""
        for block in self.schedule(model, posterior):
            model, posterior = self.update(model, posterior, data, block, observations)
        return model, posterior

    def update(
        self, model: Model, posterior: Posterior, data: tuple, block: str, observations: Observations
    ) -> tuple[Model, Posterior]:
        """One block set to its optimum, by hand-derived or derived update as `updates` says."""
        closed = self.closed_forms(model)
        if self.updates == "closed" and block not in closed:
            raise InputError(
                f"EM: {type(model).__name__} has no hand-derived update of {block!r} in this factorisation; it has "
                f"{sorted(closed)}"
            )
        if block not in closed:
            return expectation.derived_update(model, posterior, data, block, observations)
        return closed_update(model, posterior, block, closed[block](model, posterior, data, observations))

    def elbo(self, model: Model, posterior: Posterior, data: tuple, observations: Observations) -> Float[Array, ""]:
        """The evidence lower bound."""
        closed = self.closed_forms(model)
        if "elbo" in closed:
            return closed["elbo"](model, posterior, data, observations)
        return expectation.elbo(model, posterior, data, observations)


@compiled
def _informed(algorithm: EM, model: Model, posterior: Posterior, data: tuple, blocks: tuple[str, ...]) -> Posterior:
    """The posterior with some of its blocks updated."""
    observations = expectation.observe(model, posterior, data)
    for block in blocks:
        _, posterior = algorithm.update(model, posterior, data, block, observations)
    return posterior


@compiled
def _observe(model: Model, posterior: Posterior, data: tuple) -> Observations:
    return expectation.observe(model, posterior, data)


def _check_layout(start: Posterior, expected: Posterior) -> None:
    """Raise ValueError where a posterior to start from is not laid out as the program and its data demand."""
    if start.names() != expected.names() or start.factors.keys() != expected.factors.keys():
        raise InputError(f"start: the posterior has {sorted(start.names())}, the program {sorted(expected.names())}")
    for name in start.order:
        own, wanted = (
            [leaf.shape for leaf in jax.tree.leaves(p.factors.get(name, p.points.get(name)))] for p in (start, expected)
        )
        if own != wanted:
            raise InputError(f"start: {name!r} has arrays of shapes {own}, but the data ask for {wanted}")


def closed_update(model: Model, posterior: Posterior, block: str, value: Any) -> tuple[Model, Posterior]:
    """Put a block's hand-derived value in its place."""
    if block in posterior.factors:
        return model, posterior.with_factor(block, posterior.factors[block].with_natural(value))
    return expectation.with_unknown(model, posterior, block, value)
