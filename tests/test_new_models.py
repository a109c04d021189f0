"""Models as a newcomer writes them: one program each, and five algorithms without another line."""

from typing import Annotated

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jaxtyping import Array
from numpyro.infer.autoguide import AutoNormal

import vbss


class RandomEffects(vbss.Model):
    """Schools with effects of their own about a common mean."""

    mean: Annotated[Array, vbss.Linear()]
    noise_precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        num_groups, size = y.shape
        with numpyro.plate("group", num_groups):
            effect = numpyro.sample("effect", dist.Normal(self.mean, 2.0))
        with numpyro.plate("group", num_groups, dim=-2), numpyro.plate("member", size, dim=-1):
            numpyro.sample("y", dist.Normal(effect[..., None], self.noise_precision**-0.5), obs=y)


class Counts(vbss.Model):
    """Two kinds of day with rates of their own, drawn from a gamma distribution."""

    log_weights: Annotated[Array, vbss.Simplex()]

    def __call__(self, counts):
        with numpyro.plate("kind", 2):
            rate = numpyro.sample("rate", dist.Gamma(jnp.array([30.0, 150.0]), 10.0))
        with numpyro.plate("day", counts.shape[0]):
            kind = vbss.indicator("kind_of_day", self.log_weights)
            density = vbss.Expanded(dist.Poisson, rate=("k", rate))
            numpyro.sample("counts", vbss.Gated("d", {"dk": kind}, density), obs=counts)


def _effects():
    effects = jr.normal(jr.key(0), (6, 1)) * 2 + 1
    y = effects + jr.normal(jr.key(1), (6, 8))
    return RandomEffects(jnp.zeros(()), jnp.ones(())), y


def _counts():
    rates = jnp.where(jr.bernoulli(jr.key(2), 0.4, (40,)), 15.0, 3.0)
    return Counts(jnp.log(jnp.array([0.5, 0.5]))), jr.poisson(jr.key(3), rates).astype(float)


PROBLEMS = {"random effects": (_effects, "effect", "group"), "counts": (_counts, "rate", "day")}


def _algorithms(plate):
    return {
        "EM": (vbss.EM(), 60),
        "natural gradient": (vbss.NaturalGradient(tolerance=0.0, forgetting=0.6), 60),
        "SVI": (vbss.SVI(AutoNormal, optimizer=optax.adam(0.03)), 1500),
        "Monte-Carlo EM": (vbss.MonteCarloEM(), 40),
        "MCMC": (vbss.MCMC(num_warmup=100, num_draws=200, num_chains=2), 200),
    }


@pytest.fixture(scope="module", params=PROBLEMS)
def solutions(request):
    make, site, plate = PROBLEMS[request.param]
    model, data = make()
    found = {}
    for name, (algorithm, steps) in _algorithms(plate).items():
        # MCMC holds parameters where they are: it begins with those that EM has learnt.
        start = found["EM"] if name == "MCMC" else None
        found[name] = vbss.fit(model, data, algorithm, key=jr.key(4), start=start, max_steps=steps)
    return site, found


@pytest.mark.parametrize("name", ["EM", "natural gradient", "SVI", "Monte-Carlo EM", "MCMC"])
def test_five_algorithms_agree_on_the_posterior(solutions, name):
    site, found = solutions
    exact, solution = found["EM"].posterior[site], found[name].posterior[site]
    deviation = np.abs(np.asarray(solution.mean - exact.mean)) / np.sqrt(np.asarray(exact.variance))
    assert deviation.max() < 1.0, deviation
    assert found[name].status in (vbss.Status.converged, vbss.Status.max_steps)
    assert np.isfinite(found[name].elbo).all()
