"""NumPyro's stochastic inference on our programs: any guide, any optimiser, learnt parameters, exact discrete sites."""

from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jaxtyping import Array
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoGuideList, AutoMultivariateNormal, AutoNormal

import vbss
from vbss.distributions import ComplexNormal, Empirical


class Mixture(vbss.Model):
    """A mixture of normals on the line with a prior on the means; it counts how often it is traced."""

    log_weights: Annotated[Array, vbss.Simplex()]
    precision: Annotated[Array, vbss.Precision()]
    num_traces: ClassVar[list[int]] = [0]

    def __call__(self, y):
        self.num_traces[0] += 1
        with numpyro.plate("k", self.log_weights.shape[0]):
            loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            density = vbss.Normal(("k", loc), ("", self.precision))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)


LOC = jnp.array([-2.0, 2.0])


@pytest.fixture(scope="module")
def problem():
    y = jnp.concatenate([jr.normal(jr.key(0), (30,)) / 2 - 3, jr.normal(jr.key(1), (20,)) / 2 + 3])
    return Mixture(jnp.log(jnp.ones(2) / 2), jnp.array(1.0)), y


@pytest.fixture(scope="module")
def algorithm():
    return vbss.SVI(optimizer=optax.adam(0.05), num_samples=400)


@pytest.fixture(scope="module")
def solution(problem, algorithm):
    model, y = problem
    return vbss.fit(model, y, algorithm, start={"loc": LOC}, max_steps=1000)


@pytest.fixture(scope="module")
def variational(problem):
    """The same by coordinate ascent, with a factorised posterior."""
    model, y = problem
    return vbss.fit(model, y, vbss.EM(probes=False), start={"z": jax.nn.one_hot((y > 0).astype(int), 2)})


def test_reaches_the_bound_parameters_and_posterior_of_coordinate_ascent(solution, variational):
    assert solution.status in (vbss.Status.converged, vbss.Status.max_steps)
    assert abs(solution.elbo[-100:].mean() - variational.elbo[-1]) < 0.01 * abs(variational.elbo[-1])
    weights = jnp.exp(solution.model.log_weights)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(weights, jnp.exp(variational.model.log_weights), atol=0.03)
    np.testing.assert_allclose(solution.model.precision, variational.model.precision, rtol=0.1)
    own, expected = solution.posterior["loc"], variational.posterior["loc"]
    assert isinstance(own, dist.Normal)
    np.testing.assert_allclose(own.mean, expected.mean, atol=0.1)
    np.testing.assert_allclose(own.variance, expected.variance, rtol=0.5)
    np.testing.assert_allclose(solution.posterior["z"].probs, variational.posterior["z"].probs, atol=1e-3)


def test_draws_are_joint_and_of_the_programs_shapes(solution):
    draws = solution.posterior.sample(jr.key(0), 5)
    assert {name: value.shape for name, value in draws.items()} == {"loc": (5, 2), "z": (5, 50)}
    assert solution.posterior.names() == {"loc", "z"}
    np.testing.assert_array_equal(draws["z"][0, :30], 0)
    with pytest.raises(KeyError, match="'nothing' is not a site"):
        solution.posterior["nothing"]


def test_other_data_of_the_same_shape_compile_nothing(problem, algorithm, solution):
    model, y = problem
    vbss.fit(model, y + 0.5, algorithm, start={"loc": LOC}, max_steps=3)
    before = Mixture.num_traces[0]
    other = vbss.fit(model, y + 1, algorithm, start={"loc": LOC}, max_steps=20)
    assert Mixture.num_traces[0] == before
    assert other.elbo[0] != solution.elbo[0]


def test_goes_on_from_a_solution_and_from_a_file(problem, algorithm, solution, variational, tmp_path):
    model, y = problem
    vbss.save(tmp_path / "solution", solution)
    stored = vbss.load(tmp_path / "solution", Mixture)
    np.testing.assert_array_equal(stored.posterior["loc"].mean, solution.posterior["loc"].mean)
    goes_on = vbss.fit(model, y, algorithm, start=stored, max_steps=2)
    assert goes_on.elbo[0] == solution.elbo[-1]
    after_ascent = vbss.fit(model, y, algorithm, start=variational, max_steps=2)
    np.testing.assert_allclose(after_ascent.elbo[0], variational.elbo[-1], rtol=0.03)


def test_a_guide_function_has_its_own_params(problem):
    model, y = problem

    def guide(y):
        loc = numpyro.param("guess", LOC)
        with numpyro.plate("k", 2):
            numpyro.sample("loc", dist.StudentT(5.0, loc, 0.1))

    solution = vbss.fit(model, y, vbss.SVI(guide, optimizer=numpyro.optim.Adam(0.1), num_samples=300), max_steps=150)
    posterior = solution.posterior["loc"]
    assert isinstance(posterior, Empirical)
    np.testing.assert_allclose(posterior.mean, [-3.0, 3.0], atol=0.3)


class Offset(vbss.Model):
    """Latents on a complex and a positive support, points, and nothing discrete."""

    scale: Annotated[Array, vbss.Variance()]

    def __call__(self, y):
        shares = jnp.exp(vbss.point("shares", jnp.log(jnp.ones(2) / 2), vbss.Simplex()))
        drift = vbss.point("drift", jnp.zeros(()), vbss.Linear())
        x = numpyro.sample("x", ComplexNormal(0.0, 1.0))
        rate = numpyro.sample("rate", dist.Gamma(3.0, 3.0))
        mean = jnp.stack([x.real, x.imag + drift]) * shares
        numpyro.sample("y", dist.Normal(mean, jnp.sqrt(self.scale / rate)).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("guide", "elbo"),
    [
        (partial(AutoNormal, init_scale=0.2), TraceMeanField_ELBO()),
        (AutoMultivariateNormal(lambda y: None, init_scale=0.2), Trace_ELBO(num_particles=2)),
    ],
)
def test_guides_with_settings_and_complex_latents(guide, elbo):
    y, model = jnp.array([[1.0, 2.0], [1.2, 2.4]]), Offset(jnp.array(0.5))
    algorithm = vbss.SVI(guide, elbo, num_samples=50, frozen=("scale", "drift"), tolerance=0.0)
    solution = vbss.fit(model, y, algorithm, start={"drift": jnp.array(0.3), "x": jnp.array(1 + 1j)}, max_steps=30)
    assert solution.model.scale == 0.5 and solution.posterior["drift"] == 0.3
    shares = jnp.exp(solution.posterior["shares"])
    np.testing.assert_allclose(shares.sum(), 1.0, rtol=1e-12)
    assert shares[0] != 0.5
    assert solution.posterior["x"].mean.dtype == complex and (solution.posterior.sample(jr.key(0), 9)["rate"] > 0).all()


class Plain(vbss.Model):
    """A mixture of normals on the line, all of it learnt."""

    log_weights: Annotated[Array, vbss.Simplex()]
    loc: Annotated[Array, vbss.Linear()]
    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            density = vbss.Normal(("k", self.loc), ("", self.precision))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)


def test_without_continuous_latents_it_climbs_the_exact_likelihood(problem):
    mixture, y = problem
    model = Plain(mixture.log_weights, LOC, mixture.precision)
    expected = vbss.fit(model, y, vbss.EM(tolerance=1e-12, probes=False), max_steps=500)
    solution = vbss.fit(model, y, vbss.SVI(optimizer=optax.adam(0.1), num_samples=1, tolerance=0.0), max_steps=500)
    for name in model.parameter_kinds():
        np.testing.assert_allclose(getattr(solution.model, name), getattr(expected.model, name), atol=1e-3)
    np.testing.assert_allclose(solution.elbo[-1], expected.elbo[-1], atol=1e-3)
    np.testing.assert_allclose(solution.posterior["z"].probs, expected.posterior["z"].probs, atol=1e-2)


def test_numpyros_enumeration_gives_the_same_bound(problem):
    model, y = problem

    def guide(y):
        with numpyro.plate("k", 2):
            numpyro.sample("loc", dist.Delta(numpyro.param("guess", LOC)))

    own, enumerated = (
        vbss.fit(model, y, vbss.SVI(guide, elbo, num_samples=1), max_steps=1)
        for elbo in (Trace_ELBO(), TraceEnum_ELBO())
    )
    np.testing.assert_allclose(own.elbo, enumerated.elbo, rtol=1e-10)
    assert enumerated.posterior.names() == {"loc"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guide": "normal"}, "guide must be"),
        ({"guide": AutoGuideList(lambda y: None)}, "AutoGuideList"),
        ({"elbo": "elbo"}, "elbo must be"),
        ({"optimizer": 0.1}, "optimizer must be"),
        ({"num_samples": 0}, "num_samples"),
        ({"window": 1}, "window"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        vbss.SVI(**arguments)


def test_what_cannot_be_is_refused(problem):
    model, y = problem
    with pytest.raises(ValueError, match="frozen: 'mean'"):
        vbss.fit(model, y, vbss.SVI(frozen=("mean",)))
    with pytest.raises(ValueError, match="'z' is not a continuous latent or point"):
        vbss.fit(model, y, vbss.SVI(), start={"z": jnp.ones((50, 2)) / 2})
    with pytest.raises(ValueError, match=r"'loc' must have shape \(2,\)"):
        vbss.fit(model, y, vbss.SVI(), start={"loc": jnp.ones(3)})
