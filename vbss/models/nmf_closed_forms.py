"""Hand-derived updates of low-rank spectra, which models of sources that add up share.

Of a class's variances v_fn, log p has a derivative that is fit less cost, both not negative (`vbss.additive`). How they
come about is the model's; spectra and activations need no more.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.additive import improved_scalars
from vbss.expectation import Observations
from vbss.models.bins import einsum
from vbss.models.by_frequency import mapped, summed
from vbss.models.local_gaussian_nmf_layout import groups
from vbss.posteriors import Posterior

OfVariances = Callable[[Any, Any, Float[Array, "c n"]], tuple[list[Float[Array, "f n"]], list[Float[Array, "f n"]]]]


def updates_of_variances(rows: Callable[[Posterior, tuple], Any], of_variances: OfVariances) -> dict[str, Callable]:
    """The closed forms of `spectra` and `activations`.

    Args:
        rows: what there is of each frequency, from posterior and data; `spectra` (F, C) among it.
        of_variances: fit and cost of each class's variances, from the model, a few frequencies' rows and the
            activations.
    """

    def spectra(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
        """T <- T (sum_n fit V / sum_n cost V)^(1/2)."""
        activations = posterior.points["activations"]

        def improved(rows: Any) -> Array:
            of_classes = [v for _, _, group in groups(model, rows.spectra, activations) for v in group]
            fit, cost = (
                jnp.concatenate([einsum("fn,bn->fb", p, v) for p, v in zip(part, of_classes, strict=True)], 1)
                for part in of_variances(model, rows, activations)
            )
            return improved_scalars(rows.spectra, fit, cost)

        return mapped(improved, rows(posterior, data), activations.shape[1])

    def activations(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
        """V <- V (sum_f fit T / sum_f cost T)^(1/2)."""
        activations = posterior.points["activations"]

        def of(rows: Any) -> tuple[Array, ...]:
            of_classes = [
                t for _, group, _ in groups(model, rows.spectra, activations) for t in jnp.moveaxis(group, 1, 0)
            ]
            return tuple(
                jnp.concatenate([einsum("fn,fb->bn", p, t) for p, t in zip(part, of_classes, strict=True)])
                for part in of_variances(model, rows, activations)
            )

        fit, cost = summed(of, rows(posterior, data), activations.shape[1])
        return improved_scalars(activations, fit, cost)

    return {"spectra": spectra, "activations": activations}
