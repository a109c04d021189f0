"""An angle about a shift that depends on the state: its wrapped residual is normal."""

from math import log, pi
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from vbss.densities.base import ExponentialFamily, Term
from vbss.densities.labelled import Labelled, union


class WrappedResidual(ExponentialFamily):
    """y = wrap(shift + r) with r ~ N(loc, variance): an angle in rad, scored by N(wrap(y - shift); loc, variance).

    That score is the leading term of the wrapped normal, sum_n N(wrap(y - shift) + 2 pi n; loc, variance): it lacks the
    mass beyond half a turn, so that it is slightly less than a density over the circle, and is linear in 1 / variance,
    loc / variance, loc^2 / variance and log(variance), so that these have closed-form maximisers.
    Source: Mandel, Weiss and Ellis, "Model-based expectation-maximization source separation and localization" (2010).

    Args:
        shift: (axes, array) in rad, a constant, of axes of plates and of states.
        loc, variance: (axes, array) in rad and rad^2; variance > 0.
    """

    shift: Labelled
    loc: Labelled
    variance: Labelled
    support: ClassVar[constraints.Constraint] = constraints.real

    def __init__(self, shift: tuple[str, ArrayLike], loc: tuple[str, ArrayLike], variance: tuple[str, ArrayLike]):
        self.shift, self.loc, self.variance = Labelled(*shift), Labelled(*loc), Labelled(*variance)

    @property
    def event_shape(self):
        return ()

    def parameters(self):
        return [(self.shift, 0), (self.loc, 0), (self.variance, 0)]

    def statistics(self, plates, value):
        """The residual under each state, and its square: the plates, then the states of the shift."""
        axes = self._residual_axes(plates)
        value = value.reshape(*value.shape, *(1,) * (len(axes) - len(plates)))
        own = self.shift.axes
        shift = self.shift.array.transpose([own.index(letter) for letter in axes if letter in own])
        shift = jnp.expand_dims(shift, [axes.index(letter) for letter in axes if letter not in own])
        residual = wrapped(value - shift.reshape(*(1,) * (value.ndim - shift.ndim), *shift.shape))
        return {"residual": residual, "square": residual**2}

    def terms(self, plates, statistics):
        axes = self._residual_axes(plates)
        residual, square = Labelled(axes, statistics["residual"]), Labelled(axes, statistics["square"])
        inverse = Labelled(self.variance.axes, 1 / self.variance.array)
        log_variance = Labelled(self.variance.axes, jnp.log(self.variance.array) + log(2 * pi))
        return [
            Term(-0.5, [square, inverse]),
            Term(1.0, [residual, inverse, self.loc]),
            Term(-0.5, [inverse, Labelled(self.loc.axes, self.loc.array**2)]),
            Term(-0.5, [log_variance]),
        ]

    def sample(self, key, pick, shape):
        loc, variance = pick(self.loc, 0), pick(self.variance, 0)
        noise = jax.random.normal(key, shape, loc.dtype)
        return wrapped(pick(self.shift, 0) + loc + jnp.sqrt(variance) * noise)

    def _residual_axes(self, plates: str) -> str:
        return union(plates, self.shift.axes)


def wrapped(angle: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The angle in rad within half a turn of zero."""
    return angle - 2 * pi * jnp.round(angle / (2 * pi))
