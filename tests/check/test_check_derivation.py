"""`check_derivation` on the smallest of programs: right, and with mistakes planted that fail one row each."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jaxtyping import Array

import vbss
from vbss import expectation
from vbss.errors import InputError


class Mixture(vbss.Model):
    """z_n ~ Cat(weights), y_n | z_n = k ~ N(loc_k, 1)."""

    log_weights: Array
    loc: Annotated[Array, vbss.Linear()]

    density = vbss.Normal

    def means(self):
        return self.loc

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            density = self.density(("k", self.means()), ("k", jnp.ones_like(self.loc)))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)


def closed_loc(model, posterior, data, observations):
    """The weighted means of the data."""
    probs = jax.nn.softmax(posterior.factors["z"].natural["onehot"], -1)
    return jnp.einsum("nk,n->k", probs, data[0]) / probs.sum(0)


def closed_elbo(model, posterior, data, observations):
    return expectation.elbo(model, posterior, data, observations)


def mixture(cls: type[Mixture] = Mixture, components: int = 2) -> tuple[Mixture, Array]:
    y = np.array([0.3, 0.9, 1.4, 2.8, 4.1, 5.6])
    loc = np.linspace(2.0, 3.0, components)
    return cls(jnp.asarray(np.full(components, -np.log(components))), jnp.asarray(loc)), jnp.asarray(y)


class ByHand(Mixture):
    def closed_forms(self):
        return {"loc": closed_loc, "elbo": closed_elbo}


_CLAUSES = (
    "probes",
    "E_q[log p] = Monte Carlo",
    "one trace",
    "vmap = loop",
    "float32 = float64",
    "two devices = one",
    "saved and loaded",
)


def test_rows_that_cannot_be_tried_say_why(monkeypatch):
    device = jax.local_devices()[0]
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    with jax.enable_x64(False):
        model, y = mixture(ByHand)
        report = vbss.check_derivation(model, y, num_states=2)
    assert report.passed, f"\n{report}"
    assert tuple(row.name for row in report.rows) == ("elbo", *_CLAUSES)
    assert [check.block for check in report.blocks if check.difference is not None] == ["loc"]
    assert report.elbo_difference <= np.finfo(np.float32).eps
    assert report.tolerance == np.finfo(np.float32).eps ** 0.5
    skipped = {row.name: row.note for row in report.rows if row.verdict == "skipped"}
    assert skipped.keys() == {"float32 = float64", "two devices = one"}
    assert "double precision" in skipped["float32 = float64"] and "device" in skipped["two devices = one"]


def test_blocks_alone_and_another_factorisation():
    model, y = mixture(ByHand)
    report = vbss.check_derivation(model, y, num_states=1, at_mode=("z",), contract=False)
    assert report.passed and report.rows == ()  # updates by hand hold for the model's own factorisation
    assert {check.block for check in report.blocks} == {"z", "loc"}
    assert all(check.difference is None for check in report.blocks)


def test_numerical_updates_need_not_reach_the_optimum():
    class Numerically(Mixture):
        loc: Annotated[Array, vbss.Numerical(num_steps=1)]

    model, y = mixture(Numerically)
    report = vbss.check_derivation(model, y, num_states=1, contract=False)
    assert report.passed, f"\n{report}"
    gradients = {check.block: check.gradient for check in report.blocks}
    assert gradients["loc"] is None and gradients["z"] is not None


def test_wrong_input_is_refused():
    model, y = mixture()
    with pytest.raises(InputError, match="num_states"):
        vbss.check_derivation(model, y, num_states=0)
    with pytest.raises(ValueError, match="no latent|not a latent"):
        vbss.check_derivation(model, y, at_mode=("w",))


class WrongUpdate(Mixture):
    def closed_forms(self):
        return {"loc": lambda *arguments: closed_loc(*arguments) + 0.1}


class TwoFaced(vbss.Normal):
    """What NumPyro calls is not what inference calls."""

    def elementwise(self, statistics, gates, plates):
        return super().elementwise(statistics, gates, plates) - 0.5


class WrongDensity(Mixture):
    density = TwoFaced


class OutsideTheRules(Mixture):
    """Quadratic in `loc` only within a range, which the inference does not leave."""

    def means(self):
        return jnp.clip(self.loc, 1.5, 3.5)


class OutOfSight(Mixture):
    """An update about a point so far away that single precision loses what it is about."""

    def closed_forms(self):
        def loc(model, posterior, data, observations):
            return closed_loc(model, posterior, (data[0] - 1e7,), observations) + 1e7

        return {"loc": loc}


class Retraced(Mixture):
    """The weight of the only component, as a number of Python: its weak type is another one than the model's."""

    log_weights: Annotated[Array, vbss.Simplex()]

    def closed_forms(self):
        return {"log_weights": lambda model, *_: jnp.full(model.log_weights.shape, 0.0)}


class WrongBoundWithoutVmap(Mixture):
    """A wrong bound, and an update outside of JAX that does not say what it is of a batch."""

    def closed_forms(self):
        def loc(*arguments):
            value = closed_loc(*arguments)
            return jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(value.shape, value.dtype), value)

        return {"loc": loc, "elbo": lambda *arguments: closed_elbo(*arguments) + 0.1}


_MISTAKES = {
    "wrong update": (WrongUpdate, 2, ("loc",)),
    "wrong bound, no batch": (WrongBoundWithoutVmap, 2, ("elbo", "vmap = loop")),
    "total differs from log_prob": (WrongDensity, 2, ("E_q[log p] = Monte Carlo",)),
    "outside the rules": (OutsideTheRules, 2, ("probes",)),
    "loses precision": (OutOfSight, 2, ("float32 = float64",)),
    "retraced": (Retraced, 1, ("one trace",)),
}


@pytest.mark.parametrize("mistake", _MISTAKES)
def test_a_mistake_is_caught_by_its_row_alone(mistake):
    cls, components, failures = _MISTAKES[mistake]
    model, y = mixture(cls, components)
    report = vbss.check_derivation(model, y, num_states=1)
    assert report.failures == failures, f"\n{report}"
    assert all(row.verdict != "skipped" for row in report.rows)
