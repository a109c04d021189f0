"""Linear regression behind gates: a normal density whose mean is a product of coefficients and regressors."""

from math import log
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array
from numpyro.distributions import constraints

from vbss.densities.base import ExponentialFamily, Term
from vbss.densities.labelled import FEATURE, Labelled


class LinearNormal(ExponentialFamily):
    """y ~ N(<coefficients, regressors>, 1 / precision), scalar and real.

    As `Normal` with that mean, but coefficients and regressors may have axes of their own (those of components and
    those of observations): no array has both, and the statistics of a regression appear by themselves.

    Args:
        coefficients, regressors: (axes, array), both with one event axis, of the same name, over which they are
            multiplied.
        precision: (axes, array) > 0, no event axis. In float32 the data should be centred.
    """

    coefficients: Labelled
    regressors: Labelled
    precision: Labelled
    support: ClassVar[constraints.Constraint] = constraints.real

    def __init__(
        self, coefficients: tuple[str, ArrayLike], regressors: tuple[str, ArrayLike], precision: tuple[str, ArrayLike]
    ):
        self.coefficients, self.regressors = Labelled(*coefficients), Labelled(*regressors)
        self.precision = Labelled(*precision)
        if self.coefficients.axes[-1:] != self.regressors.axes[-1:]:
            raise ValueError(
                "LinearNormal: coefficients and regressors must end with the same axis, got "
                f"{self.coefficients.axes!r} and {self.regressors.axes!r}"
            )
        sizes = self.coefficients.array.shape[-1:], self.regressors.array.shape[-1:]
        if not self.coefficients.axes or sizes[0] != sizes[1]:
            raise ValueError(
                f"LinearNormal: coefficients and regressors must have an event axis of one size, got shapes "
                f"{self.coefficients.array.shape} and {self.regressors.array.shape}"
            )

    @property
    def event_shape(self):
        return ()

    def parameters(self):
        return [(self.coefficients, 1), (self.regressors, 1), (self.precision, 0)]

    def statistics(self, plates, value):
        return {"value": value, "square": value**2}

    def terms(self, plates, statistics):
        value, square = Labelled(plates, statistics["value"]), Labelled(plates, statistics["square"])
        coefficients, regressors = self.coefficients.array, self.regressors.array
        rows, columns = np.triu_indices(coefficients.shape[-1])
        twice = jnp.asarray(np.where(rows == columns, 1.0, 2.0), coefficients.dtype)
        twice = twice.reshape(*(1,) * (coefficients.ndim - 1), -1)
        log_precision = Labelled(self.precision.axes, jnp.log(self.precision.array) - log(2 * np.pi))

        def features(parameter: Labelled, array: Array) -> Labelled:
            return Labelled(parameter.axes[:-1] + FEATURE, array)

        return [
            Term(-0.5, [square, self.precision]),
            Term(
                1.0,
                [
                    value,
                    self.precision,
                    features(self.coefficients, coefficients),
                    features(self.regressors, regressors),
                ],
            ),
            Term(
                -0.5,
                [
                    self.precision,
                    features(self.coefficients, twice * coefficients[..., rows] * coefficients[..., columns]),
                    features(self.regressors, regressors[..., rows] * regressors[..., columns]),
                ],
            ),
            Term(0.5, [log_precision]),
        ]

    def sample(self, key, pick, shape):
        loc = (pick(self.coefficients, 1) * pick(self.regressors, 1)).sum(-1)
        return loc + jax.random.normal(key, shape, loc.dtype) / jnp.sqrt(pick(self.precision, 0))
