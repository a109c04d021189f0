"""Which sites share a factor: as the user says, else as the program's dependencies suggest."""

from typing import Annotated

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from programs import bayesian_mixture, student_mixture

import vbss
from vbss.factorization import initial_posterior
from vbss.factors import GivenFactor, ModeFactor, ValueFactor
from vbss.families import JointGaussian, NormalWishart


class Regression(vbss.Model):
    """Two coefficients that explain the data together."""

    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, x, y):
        slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
        offset = numpyro.sample("offset", dist.Normal(1.0, 3.0))
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(slope * x + offset, self.precision**-0.5), obs=y)


@pytest.fixture(scope="module")
def regression():
    x = jr.normal(jr.key(0), (9,)) + 2
    return Regression(jnp.array(1.5)), (x, 0.7 * x - 1 + jr.normal(jr.key(1), (9,)))


def _posterior(model, data, **options):
    return initial_posterior(model, data, jr.key(3), **options)


def test_joined_normals_are_the_exact_posterior(regression):
    model, (x, y) = regression
    joint = vbss.EM(blocks=[("slope", "offset")], frozen=["precision"])
    solution = vbss.fit(model, (x, y), joint, max_steps=1)
    design = np.stack([x, np.ones_like(x)], 1)
    precision = np.diag([1 / 4, 1 / 9]) + 1.5 * design.T @ design
    covariance = np.linalg.inv(precision)
    mean = covariance @ (np.array([0, 1 / 9]) + 1.5 * design.T @ np.asarray(y))
    assert isinstance(solution.posterior.factors["slope"].family, JointGaussian)
    for number, site in enumerate(("slope", "offset")):
        np.testing.assert_allclose(solution.posterior[site].mean, mean[number], rtol=1e-10)
        np.testing.assert_allclose(solution.posterior[site].variance, covariance[number, number], rtol=1e-10)
    prior = design @ np.diag([4.0, 9.0]) @ design.T + np.eye(9) / 1.5
    evidence = dist.MultivariateNormal(design @ np.array([0.0, 1.0]), prior).log_prob(y)
    np.testing.assert_allclose(solution.elbo[-1], evidence, rtol=1e-11)
    assert solution.model.precision == model.precision
    apart = vbss.fit(model, (x, y), vbss.EM(tolerance=0.0, frozen=["precision"]), max_steps=100)
    np.testing.assert_allclose(apart.posterior["slope"].mean, mean[0], atol=1e-3)
    assert apart.elbo[-1] < evidence
    draws = solution.posterior.sample(jr.key(5), 4000)
    sampled = np.cov(draws["slope"], draws["offset"])
    np.testing.assert_allclose(sampled, covariance, atol=0.1 * np.abs(covariance).max())


def test_a_latent_given_an_indicator_may_stand_on_its_own():
    model, data = student_mixture(jr.key(0), num=12, size=1)
    joint, apart = _posterior(model, data), _posterior(model, data, blocks=["z", "u"])
    assert isinstance(joint.factors["u"], GivenFactor) and joint.order == ("u",)
    assert isinstance(apart.factors["u"], ValueFactor) and set(apart.order) == {"z", "u"}
    assert apart.factors["u"].natural["log"].shape == (12, 1)
    frozen = ("log_weights", "loc", "precision")
    exact = vbss.fit(model, data, vbss.EM(frozen=frozen), max_steps=20)
    bound = vbss.fit(model, data, vbss.EM(frozen=frozen, blocks=["z", "u"]), max_steps=50)
    assert bound.elbo[-1] < exact.elbo[-1]
    assert np.diff(bound.elbo).min() > -1e-9


def test_dependencies_join_a_normal_with_the_wishart_of_its_prior():
    model, data = bayesian_mixture(jr.key(0))
    posterior = _posterior(model, data)
    assert posterior.factors["loc"].sites == ("loc", "precision")
    assert isinstance(posterior.factors["loc"].family, NormalWishart)
    apart = _posterior(model, data, blocks=["mixing_weights", "precision", "loc", "component"])
    assert set(apart.order) == {"mixing_weights", "precision", "loc", "component"}


def test_sites_at_their_mode(regression):
    model, data = regression
    solution = vbss.fit(
        model, data, vbss.EM(tolerance=0.0, at_mode=["slope", "offset"], frozen=["precision"]), max_steps=100
    )
    assert isinstance(solution.posterior.factors["slope"], ModeFactor)
    joint = vbss.fit(model, data, vbss.EM(blocks=[("offset", "slope")], frozen=["precision"]), max_steps=1)
    for site in ("slope", "offset"):
        np.testing.assert_allclose(solution.posterior[site].v, joint.posterior[site].mean, atol=1e-3)


def test_hard_assignments_are_k_means():
    """With equal weights and one spherical precision, indicators at their mode are Lloyd's algorithm."""
    y = jnp.concatenate([jr.normal(jr.key(0), (20,)) - 3, jr.normal(jr.key(1), (20,)) + 3])

    class Means(vbss.Model):
        loc: Annotated[Array, vbss.Linear()]

        def __call__(self, y):
            with numpyro.plate("n", y.shape[0]):
                z = vbss.indicator("z", jnp.log(jnp.array([0.5, 0.5])))
                numpyro.sample("y", vbss.Gated("n", {"nk": z}, vbss.Normal(("k", self.loc), ("", jnp.ones(())))), obs=y)

    solution = vbss.fit(Means(jnp.array([-1.0, 0.5])), y, vbss.EM(at_mode=["z"]), max_steps=20)
    nearest = jnp.abs(y[:, None] - solution.model.loc[None]).argmin(1)
    np.testing.assert_array_equal(solution.posterior["z"].v, nearest)
    centers = [y[nearest == k].mean() for k in range(2)]
    np.testing.assert_allclose(solution.model.loc, centers, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [("slope",)]}, r"latent sites \['offset'\] are in no block"),
        ({"blocks": ["slope", "offset", "slope"]}, "'slope' is named 2 times"),
        ({"blocks": ["slope", "ofset"]}, "'ofset' is not a latent site"),
        ({"blocks": ["slope", "offset", ()]}, "at least one site"),
        ({"at_mode": ["ofset"]}, "at_mode: 'ofset'"),
        ({"blocks": [("slope", "offset")], "at_mode": ["slope"]}, "'slope' must have a block of its own"),
        ({"frozen": ["slope"]}, "frozen: 'slope' is not a parameter or point"),
    ],
)
def test_impossible_factorisations_are_named(regression, options, message):
    model, data = regression
    with pytest.raises(ValueError, match=message):
        vbss.fit(model, data, vbss.EM(**options), max_steps=1)


def test_sites_without_a_joint_factor_are_named():
    model, data = student_mixture(jr.key(0), num=12, size=1)

    class Two(vbss.Model):
        def __call__(self, y):
            u = numpyro.sample("u", dist.Gamma(1.0, 1.0))
            x = numpyro.sample("x", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(x, u**-0.5).expand([y.shape[0]]).to_event(1), obs=y)

    with pytest.raises(ValueError, match=r"\('u', 'x'\) have no joint factor"):
        vbss.fit(Two(), data[0][:, 0], vbss.EM(blocks=[("u", "x")]))
    assert jax.tree.leaves(_posterior(Two(), (data[0][:, 0],)).factors["x"])


class Weighted(vbss.Model):
    """A mixture whose program states conjugate priors about its parameters."""

    log_weights: Annotated[Array, vbss.Simplex()]
    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        numpyro.factor("weights_prior", dist.Dirichlet(jnp.array([3.0, 2.0])).log_prob(jnp.exp(self.log_weights)))
        numpyro.factor("precision_prior", dist.Gamma(2.0, 3.0).log_prob(self.precision).sum())
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            density = vbss.Normal(("k", jnp.array([-2.0, 2.0])), ("k", self.precision))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)


def test_priors_of_parameters_are_pseudo_counts():
    y = jr.normal(jr.key(0), (15,)) * 2
    start = Weighted(jnp.log(jnp.array([0.5, 0.5])), jnp.ones(2))
    probs = vbss.fit(start, y, max_steps=0).posterior["z"].probs
    solution = vbss.fit(start, y, max_steps=1)
    counts = probs.sum(0) + np.array([2.0, 1.0])
    np.testing.assert_allclose(jnp.exp(solution.model.log_weights), counts / counts.sum(), rtol=1e-9)
    squares = (probs * (y[:, None] - jnp.array([[-2.0, 2.0]])) ** 2).sum(0)
    np.testing.assert_allclose(solution.model.precision, (probs.sum(0) / 2 + 1) / (squares / 2 + 3), rtol=1e-9)
