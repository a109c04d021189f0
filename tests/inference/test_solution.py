"""What a solution says of itself, and its figure. Its other methods are tested with what they call."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.figure import Figure

import vbss
from vbss.posteriors import AbstractPosterior


class Known(AbstractPosterior):
    """One latent site with plates and an event, one in wrappers, and a point."""

    mean: jax.Array

    def names(self):
        return {"x", "rate", "power"}

    def __getitem__(self, name):
        if name == "power":
            return jnp.exp(self.mean)
        normal = dist.MultivariateNormal(self.mean, jnp.eye(self.mean.shape[-1]))
        return normal if name == "x" else dist.Gamma(2.0, 1.0).expand([4, 3]).to_event(1)

    def sample(self, key, num_samples):
        raise NotImplementedError


class Empty(vbss.Model):
    scale: jax.Array

    def __call__(self):
        pass


@pytest.fixture
def solution():
    elbo = np.array([-30.0, -20.0, -12.25])
    return vbss.Solution(Empty(jnp.ones(2)), Known(jnp.zeros((5, 2))), elbo, vbss.Status.converged, 2)


def test_it_says_how_the_inference_ended_and_what_was_inferred(solution):
    assert str(solution).splitlines() == [
        "Solution of Empty",
        f"  status: converged. {vbss.Status.converged.explanation}",
        "  steps: 2, last bound: -12.25 nats",
        "  power: point, (5, 2)",
        "  rate: Gamma, batch (4,), event (3,)",
        "  x: MultivariateNormal, batch (5,), event (2,)",
    ]


def test_it_computes_nothing_to_say_so(solution, monkeypatch):
    traced = []
    monkeypatch.setattr(Known, "names", lambda self: traced.append(isinstance(self.mean, jax.core.Tracer)) or {"x"})
    assert "x: MultivariateNormal" in str(solution)
    assert traced == [True]


def test_an_interrupted_inference_may_have_no_bound(solution):
    interrupted = eqx.tree_at(lambda s: s.elbo, solution, np.zeros(0))
    assert "last bound: none" in str(interrupted)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: eqx.filter(s, eqx.is_array),
        lambda s: eqx.filter(s, eqx.is_array, inverse=True),
        lambda s: jax.tree.map(jnp.shape, s),
        lambda s: jax.tree.map(lambda _: object(), s),
    ],
)
def test_whatever_stands_in_it_can_be_printed(solution, change):
    assert str(change(solution)).startswith("Solution")


def test_its_bound_is_drawn(solution):
    ax = solution.plot()
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, -30], [1, -20], [2, -12.25]])
    own = Figure().add_subplot()
    assert solution.plot(own) is own and len(own.lines) == 1
