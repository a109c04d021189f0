"""What a generative program may say: `Model`, indicators, chains, statistics, points, latents given an indicator."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, get_type_hints

import equinox as eqx
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from vbss.distributions.discrete import Indicator, MarkovChain
from vbss.kinds import Kind
from vbss.weights import Weights


class Model(eqx.Module):
    """A generative program together with its parameters.

    Subclasses are Equinox modules. A field annotated with a kind is a parameter that inference learns,

        loc: Annotated[Array, vbss.Linear()]

    other fields are fixed. `__call__` is the NumPyro program and the only place where the model's density is written.
    """

    schedule: ClassVar[tuple[str, ...] | None] = None
    """Order in which an iteration visits the blocks; by default the learnt fields, then the sites and points, which are
    then updated once before the first iteration, if no start is given for them."""

    blocks: ClassVar[tuple[tuple[str, ...], ...] | None] = None
    """Latent sites that share a factor of the posterior; by default read from the program's dependencies."""

    at_mode: ClassVar[tuple[str, ...]] = ()
    """Latent sites that inference keeps at their most probable value, as point estimates with a prior."""

    @abstractmethod
    def __call__(self, *data: Any) -> Any:
        """The generative program."""

    def parameter_kinds(self) -> dict[str, Kind]:
        """The parameters' names and kinds, in the order of their declaration."""
        hints = get_type_hints(type(self), include_extras=True)
        marks = {f.name: getattr(hints[f.name], "__metadata__", ()) for f in dataclasses.fields(self)}
        for name, all_marks in marks.items():
            if any(isinstance(mark, type) and issubclass(mark, Kind) for mark in all_marks):
                raise ValueError(f"{type(self).__name__}.{name} is annotated with a kind's class: write it with ()")
        return {name: mark for name, all_marks in marks.items() for mark in all_marks if isinstance(mark, Kind)}

    def network_names(self) -> tuple[str, ...]:
        """The fields that are marked by `vbss.Weights`: networks that training learns."""
        hints = get_type_hints(type(self), include_extras=True)
        names = (field.name for field in dataclasses.fields(self))
        return tuple(
            name
            for name in names
            if any(isinstance(mark, Weights) for mark in getattr(hints[name], "__metadata__", ()))
        )

    def replace(self, **fields: Any) -> "Model":
        """A copy with other values of some fields."""
        return dataclasses.replace(self, **fields)

    def start(self, key: Array, *data: Any) -> Mapping[str, Array]:
        """Where inference starts on a recording: {site: probabilities or value}; sites left out start at random."""
        return {}

    def closed_forms(self) -> Mapping[str, Callable]:
        """Hand-derived updates: {block: function(model, posterior, data, observations) -> the block's new value}.

        `data` are the program's arguments and `observations` the statistics of its gated sites. The value is an array
        for a point or parameter and the natural parameters for a factor; the blocks of a latent and its indicator are
        named by the latent. The key "elbo" may hold a closed form of the bound. `vbss.check_derivation` proves each
        against the program.
        """
        return {}

    def validate(self, *data: Any) -> None:
        """Raise ValueError where the data cannot be this model's; called before any compilation."""
        return None


def statistics(name: str, fn: dist.Distribution) -> dict[str, Array]:
    """Draw a latent and hand on its sufficient statistics: the program may read nothing else of it.

    Inference replaces the statistics by their expectations, which is exact because the density is linear in them.

    Raises:
        ValueError: if the distribution has no `sufficient_statistics`.
    """
    base = unexpanded(unmasked(fn)[0])
    if not hasattr(base, "sufficient_statistics"):
        raise ValueError(
            f"statistics: site {name!r} is {type(base).__name__}, which has no sufficient statistics here: draw it "
            "with numpyro.sample, or use a distribution of vbss.distributions"
        )
    drawn = base.sufficient_statistics(numpyro.sample(name, fn))
    return {key: jnp.asarray(numpyro.deterministic(f"{name}/{key}", s)) for key, s in drawn.items()}


def indicator(name: str, log_probs: Float[Array, "*batch k"], axis: int = -1) -> Float[Array, "*plates_and_k"]:
    """Draw a categorical variable with normalised log-probabilities and hand it on as a one-hot vector.

    Args:
        axis: where the K states stand in the one-hot array, counted from its end. With a long plate last (axis -2) the
            arithmetic over its elements is fastest.
    """
    return statistics(name, Indicator(log_probs, axis))["onehot"]


def markov_chain(
    name: str, log_initial: Float[Array, "*b k"], log_transition: Float[Array, "*c k k"], length: int
) -> Float[Array, "*plates t k"]:
    """Draw a discrete Markov chain of the given length and hand it on as one-hot vectors.

    Log-probabilities are normalised; rows of `log_transition` are the state that is left.
    """
    return statistics(name, MarkovChain(log_initial, log_transition, length))["onehot"]


def point(name: str, initial: Array, kind: Kind, given: str | None = None) -> Array:
    """A recording's own unknown, estimated as a point without a prior (a NumPyro `param`).

    Args:
        initial: its value before inference.
        kind: how its maximiser is read (`vbss.Simplex()`, `vbss.Linear()`, `vbss.Precision()`, `vbss.Variance()`).
        given: name of an indicator whose state the unknown belongs to: the value under each state is then fitted as if
            that state were certain, so that it stays defined where the state's probability vanishes.
    """
    return jnp.asarray(numpyro.param(name, initial, kind=kind, given=given, constraint=kind.support))


class Given(dist.Distribution):
    """A latent drawn under each state of an indicator: x | z = k ~ base_k.

    Args:
        gate: one-hot array (*plates, K).
        base: distribution of batch shape (..., K).

    A draw has shape (*plates, 1, *event): the value under the state that is true. Inference hands the program a value
    for each state, (*plates, K, *event); programs broadcast it to K before they contract it with the gate.
    """

    pytree_data_fields = ("gate", "base")

    def __init__(self, gate: Array, base: dist.Distribution):
        self.gate = gate
        self.base = base
        if not base.batch_shape or base.batch_shape[-1] != gate.shape[-1]:
            raise ValueError(
                f"Given: base must have one distribution for each of the gate's {gate.shape[-1]} states along its last "
                f"batch axis, but its batch shape is {base.batch_shape}"
            )
        super().__init__(jnp.broadcast_shapes(gate.shape[:-1], base.batch_shape[:-1]), (1, *base.event_shape))

    @property
    def support(self):
        assert self.base.support is not None
        return constraints.independent(self.base.support, 1)

    def sample(self, key, sample_shape=()):
        states = (*self.batch_shape, self.gate.shape[-1])
        draws = self.base.expand(states).sample(key, sample_shape)
        gate = self.gate.reshape(*self.gate.shape, *(1,) * len(self.base.event_shape))
        return (gate * draws).sum(len(sample_shape) + len(self.batch_shape), keepdims=True)

    def log_prob(self, value):
        return (self.gate * self.base.log_prob(value)).sum(-1)


def unexpanded(fn: dist.Distribution) -> Any:
    """The distribution beneath the expansion that plates put around it."""
    return fn.base_dist if isinstance(fn, dist.ExpandedDistribution) else fn


def unmasked(fn: dist.Distribution) -> tuple[dist.Distribution, Array | None]:
    """The distribution beneath masks, and their conjunction (None if there is none)."""
    mask = None
    while isinstance(fn, dist.MaskedDistribution):
        if fn._mask is not True:
            inner = jnp.asarray(fn._mask)
            mask = inner if mask is None else jnp.logical_and(mask, inner)
        fn = fn.base_dist
    return fn, mask
