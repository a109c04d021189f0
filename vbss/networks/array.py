"""What networks say of a recording of an array: sources' bins by one microphone, directions by all."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex

from vbss.inference.amortised import NetworkOfModel
from vbss.models import LDACGMM
from vbss.models.cgmm_start import direction_fit, mean_power
from vbss.networks.localizer import Localizer
from vbss.networks.separator import Separator


class ArrayNetwork(NetworkOfModel):
    """Factors of q of `vbss.models.LDACGMM`, as networks are trained in Deep Bayesian cGMM.

    Of the model, spatial covariances stay at the templates and the power of all bins at the recording's mean, so that
    loud bins count more. Then the bound is the paper's loss (15), with the corrections of lambda in (14).

    Attributes:
        separator: says q(z) of the bins.
        localizer: says q(w); without one, it is at its optimum if it is completed, and then the bound is higher.
    """

    separator: Separator
    localizer: Localizer | None = None

    @property
    def completed(self) -> tuple[str, ...]:
        """What `vbss.Amortised` completes."""
        optimal = () if self.localizer else ("direction",)
        return (*optimal, "log_direction_weights", "log_mixing_weights")

    def __call__(
        self, model: LDACGMM, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None
    ) -> dict[str, Array]:
        """q(z) and q(w), as starts of `vbss.fit` have them, and the power of (14)."""
        if is_observed is not None:
            mixture = jnp.where(is_observed[..., None], mixture, 0)
        masks, level = self.separator(mixture)["source"], mean_power(mixture, is_observed)
        size = mixture.shape[-1]
        # H starts at its prior's mode, (nu - M) / (nu + M) times the template.
        gauge = (model.degrees_of_freedom + size) / (model.degrees_of_freedom - size)
        power = jnp.full((masks.shape[0], masks.shape[2], masks.shape[1]), gauge * level, model.templates.dtype)
        said = {"source": masks, "power": power}
        if self.localizer is None:
            return said
        counted = masks if is_observed is None else jnp.where(is_observed[..., None], masks, 0)
        logits = self.localizer(direction_fit(model, mixture, counted, level), masks.shape[0] * masks.shape[1])
        return said | {"direction": jax.nn.softmax(logits, -1)}
