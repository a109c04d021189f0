"""Amortised inference of latents that no rule integrates: a network says a normal q, and the bound is estimated.

Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014); Rezende, Mohamed and Wierstra, "Stochastic
backpropagation and approximate inference in deep generative models" (2014).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.errors import not_negative
from vbss.inference.amortised import Amortised
from vbss.inference.collapsed import collapse
from vbss.inference.reparameterised import estimated_bound, means_of, normal_posterior, normals_of
from vbss.posteriors import AbstractPosterior
from vbss.program import Model


class AmortisedNormal(Amortised):
    """q(latents | data), independent normals whose moments a network says; for `vbss.train`.

    The bound's expectation is taken at one draw, differentiable in the network, and the divergence from a normal prior
    exactly. Networks inside the model (`vbss.Weights`) are learnt with the one that says q: an autoencoder.

    Attributes:
        network: takes the program's arguments and returns {latent: (mean, log variance)}.
        kl_weight: of the divergence; 1 is the evidence bound, less lets codes say more than the prior allows.
        warm_up: epochs over which the weight rises from 0, without which codes may stay unused.
    """

    kl_weight: float = eqx.field(static=True, default=1.0)
    warm_up: float = eqx.field(static=True, default=0.0)

    def __init__(self, network: Callable[..., Any], *, kl_weight: float = 1.0, warm_up: float = 0.0):
        super().__init__(network)
        self.kl_weight, self.warm_up = not_negative("kl_weight", kl_weight), not_negative("warm_up", warm_up)

    def check(self, model, *data):
        key = jax.random.key(0)
        jax.eval_shape(lambda: estimated_bound(model, data, {}, normals_of(self.network, data), key))

    def posterior(self, model: Model, *data: Any) -> AbstractPosterior:  # pyright: ignore[reportIncompatibleMethodOverride]
        """q of these data; a start of `vbss.fit`."""
        model.validate(*data)
        key = jax.random.key(0)
        collapsed = collapse(model, data, key, probes=False)
        normals = normals_of(self.network, data)
        event_ranks = {name: site.event_rank for name, site in collapsed.sites(means_of(normals)).items()}
        event_ranks = {name: event_ranks[name] for name in normals}
        return normal_posterior(normals, collapsed.points, event_ranks, key)

    def bound(self, model: Model, *data: Any) -> Float[Array, ""]:
        """The weighted bound of these data, estimated at a draw that is always the same."""
        return self._estimated(model, data, jax.random.key(0), self.kl_weight)

    def objective(self, model, data, key, epoch):
        weight = jnp.asarray(self.kl_weight, epoch.dtype)
        if self.warm_up:
            weight = weight * jnp.minimum(epoch / self.warm_up, 1)
        return self._estimated(model, data, key, weight)

    def _estimated(self, model: Model, data: tuple, key: Array, kl_weight: Any) -> Float[Array, ""]:
        return estimated_bound(model, data, {}, normals_of(self.network, data), key, kl_weight)
