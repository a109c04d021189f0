"""Classes whose objects are stored, and when two trees are the same, for tests."""

import dataclasses
from enum import Enum
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro

import vbss


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    name: str
    values: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "name", self.name + "!")


class Level(vbss.Model):
    """y_n ~ N(loc, 1)."""

    loc: Annotated[jax.Array, vbss.Linear()]
    labels: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, loc):
        self.loc = 10 * loc
        self.labels = ("a", "b")

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", vbss.Gated("n", {}, vbss.Normal(("", self.loc), ("", jnp.ones(())))), obs=y)


def same(a, b):
    """Whether two trees are equal in types, structure, dtypes, bits and layout."""
    if type(a) is not type(b):
        return False
    if isinstance(a, jax.Array):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jr.key_impl(a) == jr.key_impl(b) and same(jr.key_data(a), jr.key_data(b))
        return a.dtype == b.dtype and same(np.asarray(a), np.asarray(b))
    if isinstance(a, np.ndarray | np.generic):
        layout = (a.dtype, a.shape, a.flags.f_contiguous), (b.dtype, b.shape, b.flags.f_contiguous)
        return layout[0] == layout[1] and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(map(type, a)) == list(map(type, b)) and list(a) == list(b) and same([*a.values()], [*b.values()])
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a is b if isinstance(a, Enum) else repr(a) == repr(b)
