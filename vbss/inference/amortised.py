"""Amortised inference: a network says what some factors of q are for any data, and the rest of q follows from them.

Source: "Neural source separation in a deep Bayesian framework with a complex Gaussian mixture", section 3, whose loss
is the bound of its model with q(z) from a network; here of any model.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss import expectation
from vbss.context import relaxed_promotion
from vbss.errors import InputError, whole_number
from vbss.factorization import default_posterior
from vbss.factors import started
from vbss.inference.algorithm import names_of
from vbss.inference.em import EM, Updates
from vbss.posteriors import Posterior
from vbss.probes import is_proven, probe
from vbss.program import Model


class NetworkOfModel(eqx.Module):
    """A network for `Amortised` that looks at the model too, as the model is when it is asked."""

    @property
    def completed(self) -> tuple[str, ...] | None:
        """The blocks that follow from what it says, unless `Amortised` is told others."""
        return None

    @abstractmethod
    def __call__(self, model: Any, *data: Any) -> Mapping[str, Any]:
        """{site: what it is}, given the model and the program's arguments."""


class Amortised(eqx.Module):
    """q(latents | data), by a network and the model itself.

    The network says what some factors are; then each other block of the model is set to its optimum given those before
    it, in the order of the model's schedule, as a step of `vbss.EM` does. So the bound is that of variational EM at
    this q, and its gradient with respect to the network is exact, whatever part of q the network says.

    Attributes:
        network: an Equinox module that takes the program's arguments and returns {site: what it is}: of an indicator
            its states' probabilities, as a start of `vbss.fit` has them, and of any block its natural parameters, as
            the closed forms of `vbss.Model` return them; of a point its value. A `NetworkOfModel` takes the model
            first.
        completed: the blocks that follow, in this order; by default those of a `NetworkOfModel`, or all of the schedule
            that the network leaves. Others stay where the program starts them.
        num_sweeps: how often they are gone through: where they depend on each other, one pass is not their optimum.
        updates: whose updates these are, as of `vbss.EM`.
    """

    network: Callable[..., Any]
    completed: tuple[str, ...] | None = eqx.field(static=True, default=None)
    num_sweeps: int = eqx.field(static=True, default=1)
    updates: Updates = eqx.field(static=True, default="auto")

    def __init__(
        self,
        network: Callable[..., Any],
        completed: Iterable[str] | None = None,
        *,
        num_sweeps: int = 1,
        updates: Updates = "auto",
    ):
        if not callable(network):
            raise InputError(f"network must be a module that is called with the data, got {type(network).__name__}")
        self.network = network
        if completed is None and isinstance(network, NetworkOfModel):
            completed = network.completed
        self.completed = None if completed is None else names_of(completed)
        self.num_sweeps = whole_number("num_sweeps", num_sweeps, 1)
        self.updates = EM(updates=updates).updates

    def posterior(self, model: Model, *data: Any) -> Posterior:
        """q of these data; a start of `vbss.fit`.

        Raises:
            InputError: for data that are not the model's, or where the network says nothing, names no site of the
                program, or what it says has another shape.
        """
        model.validate(*data)
        return self._inferred(model, data)[0]

    def check(self, model: Model, *data: Any) -> None:
        """Raise where derived updates and bounds of the program would be wrong, as `vbss.fit` does.

        Raises:
            ProgramError: for a program outside the rules, naming the site.
        """
        posterior = default_posterior(model, data, jax.random.key(0))
        if not is_proven(model):
            probe(model, posterior, data, jax.random.key(1), self._em.schedule(model, posterior))

    def bound(self, model: Model, *data: Any) -> Float[Array, ""]:
        """The evidence lower bound of these data at their q, nats; to be compiled, differentiated and mapped."""
        posterior, observations = self._inferred(model, data)
        return self._em.elbo(model, posterior, data, observations)

    def objective(self, model: Model, data: tuple, key: Array, epoch: Float[Array, ""]) -> Float[Array, ""]:
        """What training raises in the bound's place: the bound itself, unless a subclass says otherwise.

        Args:
            key: of draws.
            epoch: how far training is, in passes over the corpus.
        """
        return self.bound(model, *data)

    @property
    def _em(self) -> EM:
        return EM(updates=self.updates)

    def _inferred(self, model: Model, data: tuple) -> tuple[Posterior, expectation.Observations]:
        # The numbers of this posterior are never used, but for those of blocks that nobody gives.
        posterior = default_posterior(model, data, jax.random.key(0))
        said = self.network(model, *data) if isinstance(self.network, NetworkOfModel) else self.network(*data)
        if not isinstance(said, Mapping) or not said:
            raise InputError(f"network must return a dict of sites and what they are, got {said!r}")
        with relaxed_promotion():
            for name, value in said.items():
                posterior = _given(posterior, name, value)
            observations = expectation.observe(model, posterior, data)
            for block in self._left(model, posterior, said) * self.num_sweeps:
                model, posterior = self._em.update(model, posterior, data, block, observations)
        return posterior, observations

    def _left(self, model: Model, posterior: Posterior, said: Mapping[str, Any]) -> tuple[str, ...]:
        """The blocks that follow from what the network says."""
        if self.completed is None:
            given = {posterior.block_of(name) for name in said}
            schedule = self._em.schedule(model, posterior)
            return tuple(block for block in schedule if block in posterior.order and block not in given)
        given = {posterior.block_of(name) for name in said}
        for block in self.completed:
            if block in given:
                raise InputError(f"completed: {block!r} is what the network says already")
            if block not in posterior.order:
                raise InputError(f"completed: {block!r} is not a block of q; there are {list(posterior.order)}")
        return self.completed


def _given(posterior: Posterior, name: str, value: Any) -> Posterior:
    """The posterior with what a network says of one site."""
    if name in posterior.points:
        expected = posterior.points[name]
        if jnp.shape(value) != expected.shape:
            raise InputError(f"network: point {name!r} must have shape {expected.shape}, got {jnp.shape(value)}")
        return posterior.with_point(name, jnp.asarray(value, expected.dtype))
    block = posterior.block_of(name)
    if block not in posterior.factors:
        raise InputError(
            f"network: {name!r} is not a site of the program with a factor; there are {sorted(posterior.names())}"
        )
    factor = posterior.factors[block]
    if not isinstance(value, Mapping):
        return posterior.with_factor(block, started(factor, jnp.asarray(value)))
    expected = {key: leaf.shape for key, leaf in factor.canonical().items()}
    got = {key: jnp.shape(leaf) for key, leaf in value.items()}
    if got != expected:
        raise InputError(f"network: block {block!r} has natural parameters of shapes {expected}, got {got}")
    return posterior.with_factor(block, factor.with_natural(dict(value)))
