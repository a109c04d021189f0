"""Random minibatches along a plate of a program: cutting data and factors, and weighting what stands in the plate."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
from numpyro.primitives import Messenger

from vbss.errors import InputError
from vbss.expectation import trace_of
from vbss.posteriors import Posterior
from vbss.program import Model


class PlateScale(Messenger):
    """Multiplies the log densities of all sites inside a plate."""

    def __init__(self, fn: Any, plate: str, scale: float):
        self.plate, self.scale = plate, scale
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "sample" and any(frame.name == self.plate for frame in msg["cond_indep_stack"]):
            msg["scale"] = self.scale if msg["scale"] is None else self.scale * msg["scale"]


class Weighted(Model):
    """A model whose sites inside a plate count several times: the whole data as a minibatch stands for them."""

    # Names that no model's parameters have.
    _model: Model
    _plate: str = eqx.field(static=True)
    _weight: float = eqx.field(static=True)

    def __call__(self, *data):
        return PlateScale(self._model, self._plate, self._weight)(*data)

    @property
    def unweighted(self) -> Model:
        return self._model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def parameter_kinds(self):
        return self._model.parameter_kinds()

    def replace(self, **fields):
        return Weighted(self._model.replace(**fields), self._plate, self._weight)


def plate_size(model: Model, posterior: Posterior, data: tuple, plate: str) -> int:
    """The number of elements of a plate.

    Raises:
        InputError: if the program has no plate of this name.
    """
    sizes = {
        frame.name: frame.size
        for site in trace_of(model, posterior, data).values()
        if site["type"] == "sample"
        for frame in site["cond_indep_stack"]
    }
    if plate not in sizes:
        raise InputError(f"plate: the program has no plate {plate!r}; it has {sorted(sizes)}")
    return sizes[plate]


def local_blocks(model: Model, posterior: Posterior, data: tuple, plate: str) -> tuple[str, ...]:
    """The factors whose sites stand inside a plate."""
    trace = trace_of(model, posterior, data)
    inside = {
        name
        for name, site in trace.items()
        if site["type"] == "sample" and any(frame.name == plate for frame in site["cond_indep_stack"])
    }
    found = []
    for key, factor in posterior.factors.items():
        if set(factor.sites) <= inside:
            found.append(key)
        elif set(factor.sites) & inside:
            raise InputError(f"plate: factor {key!r} joins sites inside and outside of plate {plate!r}")
    return tuple(found)


def check_plate(model: Model, posterior: Posterior, data: tuple, plate: str, batch_size: int) -> None:
    """Raise InputError where data and factors cannot be cut along the first axis for this plate."""
    size = plate_size(model, posterior, data, plate)
    if batch_size > size:
        raise InputError(
            f"NaturalGradient: batch_size must be at most {size}, the size of plate {plate!r}, got {batch_size}"
        )
    if not any(leaf.shape[:1] == (size,) for leaf in jax.tree.leaves(data)):
        raise InputError(
            f"plate: no argument of the program has the {size} elements of plate {plate!r} on its first axis"
        )
    if posterior.points:
        raise InputError(f"plate: points such as {next(iter(posterior.points))!r} cannot be fitted from minibatches")
    for block in local_blocks(model, posterior, data, plate):
        for leaf in jax.tree.leaves(posterior.factors[block]):
            if leaf.shape[:1] != (size,):
                raise InputError(
                    f"plate: factor {block!r} does not have plate {plate!r} on the first axis of its arrays (one has "
                    f"shape {leaf.shape}): only the outermost plate can be cut, with the states of indicators last"
                )
    taken = jnp.arange(batch_size)
    local = local_blocks(model, posterior, data, plate)
    try:
        found = plate_size(model, cut_factors(posterior, local, taken), cut(data, taken, size), plate)
    except (TypeError, ValueError) as error:
        raise InputError(f"plate: the program cannot be run on {batch_size} of the {size} elements: {error}") from error
    if found != batch_size:
        raise InputError(
            f"plate: {plate!r} has the size {found} for a minibatch of {batch_size}: take its size from the data, as "
            "numpyro.plate(name, y.shape[0]) does"
        )


def cut(data: tuple, taken: Int[Array, " batch"], size: int) -> tuple:
    """The arguments' elements along every first axis of the plate's size."""
    return jax.tree.map(lambda leaf: leaf[taken] if leaf.shape[:1] == (size,) else leaf, data)


def cut_factors(posterior: Posterior, local: tuple[str, ...], taken: Int[Array, " batch"]) -> Posterior:
    """The posterior of a minibatch."""
    for block in local:
        factor = jax.tree.map(lambda leaf: leaf[taken], posterior.factors[block])
        posterior = posterior.with_factor(block, factor)
    return posterior


def put_back(whole: Posterior, batch: Posterior, local: tuple[str, ...], taken: Int[Array, " batch"]) -> Posterior:
    """The posterior of all elements, with a minibatch's factors in their places."""
    factors: Mapping[str, Any] = {
        block: jax.tree.map(lambda a, b: a.at[taken].set(b), whole.factors[block], batch.factors[block])
        for block in local
    }
    return Posterior({**batch.factors, **factors}, batch.points, batch.kinds, batch.order)
