"""`Gated`: a density raised to powers by one-hot variables, as one NumPyro distribution."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbss.context import relaxed_promotion
from vbss.densities.base import Density
from vbss.densities.labelled import Labelled, contract, distinct_letters


class Gated(dist.Distribution):
    """prod over the gates' states of density(state)^(product of the gates), one factor for each element of the plates.

    A gate is a one-hot array: it selects which of the density's parameters an element sees. The log density is a sum of
    products of gates, statistics and parameters, so it is multi-affine in the gates and its expectation under
    independent gates is the same expression at their probabilities.

    Args:
        plates: one letter for each plate dimension of the site, in order (leftmost first).
        gates: {axes: one-hot array}; the axes name plate dimensions and the dimensions of parameters.
        density: a density whose parameters use the same letters: of an exponential family, or any by `vbss.Expanded`.

    Two faces: `log_prob` keeps the plates (what NumPyro calls); `total` contracts to a scalar (what inference calls).
    The total of an exponential family is contracted in optimal order, so that sufficient statistics appear and no array
    over plates and components exists.

    Raises:
        ValueError: if two arrays give an axis different sizes, none gives the size of a plate, a gate does not have
            exactly one axis of states, a parameter has an axis that is neither a plate nor in a gate, or an event axis
            that is.
    """

    pytree_data_fields = ("gates", "density")
    pytree_aux_fields = ("plates",)

    def __init__(self, plates: str, gates: Mapping[str, Array], density: Density):
        self.plates = plates
        self.gates = [Labelled(axes, gate) for axes, gate in gates.items()]
        self.density = density
        self._check_axes()
        sizes = self._sizes()
        missing = [letter for letter in plates if letter not in sizes]
        if missing:
            raise ValueError(f"Gated: no gate or parameter gives the size of plate axis {missing[0]!r}")
        # Enumeration adds dimensions on the left of a gate, and so of the batch.
        leading = jnp.broadcast_shapes(*(gate.array.shape[: gate.array.ndim - len(gate.axes)] for gate in self.gates))
        super().__init__((*leading, *(sizes[letter] for letter in plates)), density.event_shape)

    @property
    def support(self):
        return self.density.support

    def _check_axes(self) -> None:
        if not distinct_letters(self.plates):
            raise ValueError(f"Gated: plates must be distinct lower-case letters, got {self.plates!r}")
        # Each gate turns axes that are known into one more: the states that it selects.
        known, pending = set(self.plates), list(self.gates)
        while pending:
            ready = next((gate for gate in pending if len(set(gate.axes) - known) == 1), None)
            if ready is None:
                raise ValueError(
                    f"Gated: a gate must have one axis of states beside plates ({self.plates!r}) and the states of "
                    f"other gates, but the axes of the gates are {[gate.axes for gate in self.gates]}"
                )
            known |= set(ready.axes)
            pending.remove(ready)
        for parameter, event_rank in self.density.parameters():
            for letter in parameter.axes[: len(parameter.axes) - event_rank]:
                if letter not in known:
                    raise ValueError(
                        f"Gated: axis {letter!r} of the parameter with axes {parameter.axes!r} is neither a plate nor "
                        "in a gate"
                    )
            for letter in parameter.axes[len(parameter.axes) - event_rank :]:
                if letter in known:
                    raise ValueError(
                        f"Gated: axis {letter!r} of the parameter with axes {parameter.axes!r} is an event's, but also "
                        "a plate or in a gate"
                    )

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        batch = [Labelled(p.axes[: len(p.axes) - rank], _batch(p, rank)) for p, rank in self.density.parameters()]
        for labelled in [*self.gates, *batch]:
            trailing = labelled.array.shape[labelled.array.ndim - len(labelled.axes) :]
            for letter, size in zip(labelled.axes, trailing, strict=True):
                if sizes.get(letter, 1) != 1 and size not in (1, sizes[letter]):
                    raise ValueError(
                        f"Gated: axis {letter!r} has size {sizes[letter]} in one array and {size} in the array with "
                        f"axes {labelled.axes!r} and shape {labelled.array.shape}"
                    )
                sizes[letter] = max(size, sizes.get(letter, 1))
        return sizes

    @property
    def _plate_shape(self) -> tuple[int, ...]:
        return self.batch_shape[len(self.batch_shape) - len(self.plates) :]

    def statistics(self, value: Array) -> dict[str, Array]:
        """The sufficient statistics of an observation.

        Raises:
            ValueError: if the observation does not have the site's shape.
        """
        expected = (*self._plate_shape, *self.event_shape)
        actual = value.shape[max(value.ndim - len(expected), 0) :]
        # Enumeration leaves a plate that only gates span at size 1, to be expanded by NumPyro.
        plates_fit = all(e in (1, a) for e, a in zip(self._plate_shape, actual, strict=False))
        if len(actual) != len(expected) or not plates_fit or actual[len(self.plates) :] != self.event_shape:
            raise ValueError(
                f"Gated: an observation with plates {self.plates!r} must have shape {expected}, got {value.shape}"
            )
        return self.density.statistics(self.plates, value)

    def total(self, statistics: dict[str, Array], mask: Array | None = None) -> Array:
        """The log density summed over the plates, as a scalar.

        Args:
            statistics: of the observation, from `statistics`.
            mask: of a shape that broadcasts to the plates'; False leaves an element out.
        """
        sizes = dict(zip(self.plates, self._plate_shape, strict=True))
        spread = None if mask is None else Labelled(self.plates, jnp.broadcast_to(mask, self._plate_shape))
        return self.density.total(statistics, self.gates, spread, sizes)

    def log_prob(self, value: Array) -> Array:
        """The log density for each element of the plates, shape (*leading, *plates).

        Raises:
            ValueError: if an enumerated gate lacks one of the site's plates. NumPyro's enumeration would then sum each
                plate element on its own, which is silently wrong; use an algorithm with a factorised posterior.
        """
        for gate in self.gates:
            if gate.array.ndim > len(gate.axes) and not set(self.plates) <= set(gate.axes):
                raise ValueError(
                    f"Gated: the gate with axes {gate.axes!r} is enumerated but does not carry all plates "
                    f"{self.plates!r} of the site: NumPyro's enumeration is wrong for it. Use vbss.fit with a "
                    "factorised posterior instead."
                )
        with relaxed_promotion():
            return self.density.elementwise(self.statistics(value), self.gates, self.plates)

    def sample(self, key, sample_shape=()):
        def pick(parameter: Labelled, event_rank: int) -> Array:
            axes = parameter.axes
            batch, event = axes[: len(axes) - event_rank], axes[len(axes) - event_rank :]
            relevant = [gate for gate in self.gates if _linked(gate, batch, self.gates)]
            factors = [*relevant, parameter]
            present = "".join(letter for letter in self.plates if any(letter in factor.axes for factor in factors))
            value = contract(factors, "...", present + event)
            absent = [
                self.plates.index(letter) - len(self.plates) - event_rank
                for letter in self.plates
                if letter not in present
            ]
            return jnp.broadcast_to(
                jnp.expand_dims(value, absent), (*self.batch_shape, *value.shape[value.ndim - event_rank :])
            )

        assert key is not None
        with relaxed_promotion():
            return self.density.sample(key, pick, (*sample_shape, *self.batch_shape))


def _batch(parameter: Labelled, event_rank: int) -> Array:
    """The parameter at one event entry: its batch dimensions alone."""
    return parameter.array[(..., *(0,) * event_rank)]


def _linked(gate: Labelled, axes: str, gates: list[Labelled]) -> bool:
    """Whether the gate selects along these axes, directly or through another gate."""
    reached = set(axes)
    while True:
        grown = reached.union(*(set(g.axes) for g in gates if set(g.axes) & reached))
        if grown == reached:
            return bool(set(gate.axes) & reached)
        reached = grown
