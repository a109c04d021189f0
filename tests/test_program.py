from typing import Annotated

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from scipy import stats

import vbss
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexInverseWishart, Indicator
from vbss.factorization import initial_posterior
from vbss.program import unexpanded, unmasked

LOG_WEIGHTS = jnp.log(jnp.array([0.2, 0.5, 0.3]))


def trace(program, *args):
    with relaxed_promotion():
        return handlers.trace(handlers.seed(program, jr.key(0))).get_trace(*args)


@pytest.fixture
def relaxed():
    with relaxed_promotion():
        yield


GATE = jnp.eye(3)[jnp.array([2, 0, 1, 2])]


@pytest.mark.usefixtures("relaxed")
def test_given_draws_from_the_state_that_is_true():
    loc, scale = 100 * jnp.arange(3.0), jnp.array([1.0, 2.0, 3.0])
    given = vbss.Given(GATE, dist.Normal(loc, scale))
    assert given.batch_shape == (4,) and given.event_shape == (1,)
    draws = np.asarray(given.sample(jr.key(0), (2000,)))
    assert draws.shape == (2000, 4, 1)
    assert given.support(draws).all()
    for n, state in enumerate([2, 0, 1, 2]):
        assert stats.kstest(draws[:, n, 0], stats.norm(loc[state], scale[state]).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(draws[:, 0, 0], draws[:, 3, 0])[0, 1]) < 0.1
    expected = stats.norm.logpdf(draws[0, :, 0], loc[jnp.array([2, 0, 1, 2])], scale[jnp.array([2, 0, 1, 2])])
    np.testing.assert_allclose(given.log_prob(draws[0]), expected, rtol=1e-12)


@pytest.mark.usefixtures("relaxed")
def test_given_with_vectors_and_a_base_for_each_element():
    loc = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 2)) * 100)
    covariance = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    given = vbss.Given(GATE, dist.MultivariateNormal(loc, covariance))
    assert given.batch_shape == (4,) and given.event_shape == (1, 2)
    draw = given.sample(jr.key(1))
    chosen = loc[jnp.arange(4), GATE.argmax(-1)]
    assert draw.shape == (4, 1, 2) and jnp.abs(draw[:, 0] - chosen).max() < 8
    expected = [stats.multivariate_normal.logpdf(draw[n, 0], chosen[n], covariance) for n in range(4)]
    np.testing.assert_allclose(given.log_prob(draw), expected, rtol=1e-10)
    # A value for each state, as inference hands it on: the gate picks its own.
    values = np.random.default_rng(2).standard_normal((4, 3, 2))
    values[np.arange(4), GATE.argmax(-1)] = draw[:, 0]
    np.testing.assert_allclose(given.log_prob(values), expected, rtol=1e-10)
    leaves, structure = jax.tree.flatten(given)
    again = jax.tree.unflatten(structure, leaves)
    np.testing.assert_allclose(jax.jit(lambda d, v: d.log_prob(v))(again, draw), expected, rtol=1e-10)


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("batch", [(), (2,), (3, 1)])
def test_given_needs_a_base_for_each_state(batch):
    with pytest.raises(ValueError, match="base must have one distribution for each of .* 3 states") as error:
        vbss.Given(GATE, dist.Normal(jnp.zeros(batch), 1.0))
    assert str(batch) in str(error.value)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (5, 3)), (-2, (3, 5))])
def test_an_indicator_is_a_categorical_site_and_its_one_hot(axis, shape):
    def program():
        with numpyro.plate("n", 5):
            return vbss.indicator("z", LOG_WEIGHTS, axis)

    sites = trace(program)
    assert list(sites) == ["n", "z", "z/onehot"]
    assert sites["z"]["type"] == "sample" and sites["z/onehot"]["type"] == "deterministic"
    assert sites["z"]["value"].shape == (5,)
    assert sites["z/onehot"]["value"].shape == shape
    np.testing.assert_array_equal(sites["z/onehot"]["value"].argmax(axis), sites["z"]["value"])
    np.testing.assert_allclose(
        sites["z"]["fn"].log_prob(sites["z"]["value"]), LOG_WEIGHTS[sites["z"]["value"]], rtol=1e-9
    )
    returned = handlers.substitute(handlers.seed(program, jr.key(0)), {"z/onehot": jnp.full(shape, 0.25)})
    with relaxed_promotion():
        np.testing.assert_array_equal(returned(), 0.25)  # where inference puts the expectation


def test_a_markov_chain_is_one_site_with_its_statistics():
    def program():
        with numpyro.plate("b", 2):
            return vbss.markov_chain("z", LOG_WEIGHTS, jnp.broadcast_to(LOG_WEIGHTS, (3, 3)), 4)

    sites = trace(program)
    assert sites["z"]["value"].shape == (2, 4)
    onehot, pair = sites["z/onehot"]["value"], sites["z/pair"]["value"]
    assert onehot.shape == (2, 4, 3) and pair.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(onehot.argmax(-1), sites["z"]["value"])
    np.testing.assert_array_equal(pair.sum(-1), onehot[:, :-1])
    np.testing.assert_array_equal(pair.sum(-2), onehot[:, 1:])
    with relaxed_promotion():
        log_prob = sites["z"]["fn"].log_prob(sites["z"]["value"])
    np.testing.assert_allclose(log_prob, LOG_WEIGHTS[sites["z"]["value"]].sum(-1), rtol=1e-9)


def test_the_statistics_of_a_covariance():
    def program():
        with numpyro.plate("f", 2):
            return vbss.statistics("H", ComplexInverseWishart(4.0, jnp.ones(1)))

    sites = trace(program)
    value = sites["H"]["value"]
    assert value.shape == (2, 1, 1)
    np.testing.assert_allclose(sites["H/precision"]["value"], 1 / value[..., 0].real, rtol=1e-9)
    np.testing.assert_allclose(sites["H/log_determinant"]["value"], np.log(value[..., 0, 0].real), rtol=1e-9)


def test_statistics_of_a_distribution_that_has_none():
    with pytest.raises(ValueError, match=r"site 'x' is Normal, which has no sufficient statistics"):
        trace(lambda: vbss.statistics("x", dist.Normal(0.0, 1.0)))


def test_a_masked_indicator():
    mask = jnp.array([True, False])
    sites = trace(lambda: vbss.statistics("z", Indicator(jnp.stack([LOG_WEIGHTS] * 2)).mask(mask)))
    assert sites["z/onehot"]["value"].shape == (2, 3)


def test_a_point_is_a_param_with_its_kind():
    kind = vbss.Precision()
    site = trace(lambda: vbss.point("rate", jnp.ones(3), kind, given="z"))["rate"]
    assert site["type"] == "param" and site["kwargs"]["kind"] is kind and site["kwargs"]["given"] == "z"
    np.testing.assert_array_equal(site["value"], 1)


def test_unmasking_and_unexpanding():
    base = dist.Normal(jnp.zeros(3), 1.0)
    first, second = jnp.array([True, True, False]), jnp.array([True, False, True])
    fn, mask = unmasked(base.mask(first).mask(True).mask(second))
    assert fn is base
    np.testing.assert_array_equal(mask, first & second)
    assert unmasked(base) == (base, None)
    assert unmasked(base.mask(True))[1] is None
    np.testing.assert_array_equal(unmasked(base.mask(False))[1], False)
    assert unexpanded(base.expand((2, 3))) is base
    assert unexpanded(base) is base


class Mixture(vbss.Model):
    log_weights: Annotated[Array, vbss.Simplex()]
    loc: Annotated[Array, vbss.Linear()]
    fixed: Array
    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, vbss.Normal(("k", self.loc), ("k", self.precision))), obs=y)


class Wider(Mixture):
    extra: Annotated[Array, "any other annotation", vbss.Variance()]


MIXTURE = Mixture(LOG_WEIGHTS, jnp.arange(3.0), jnp.zeros(2), jnp.ones(3))
Y = jnp.arange(5.0)


def test_the_parameters_of_a_model_are_the_fields_with_a_kind():
    kinds = MIXTURE.parameter_kinds()
    assert list(kinds) == ["log_weights", "loc", "precision"]
    assert [type(kind) for kind in kinds.values()] == [vbss.Simplex, vbss.Linear, vbss.Precision]
    wider = Wider(LOG_WEIGHTS, jnp.arange(3.0), jnp.zeros(2), jnp.ones(3), jnp.ones(()))
    assert list(wider.parameter_kinds()) == ["log_weights", "loc", "precision", "extra"]


def test_replace_is_a_copy():
    changed = MIXTURE.replace(loc=jnp.ones(3))
    assert type(changed) is Mixture
    np.testing.assert_array_equal(changed.loc, 1)
    np.testing.assert_array_equal(MIXTURE.loc, jnp.arange(3.0))
    assert changed.fixed is MIXTURE.fixed
    with pytest.raises(TypeError, match="lok"):
        MIXTURE.replace(lok=jnp.ones(3))


class Program(vbss.Model):
    """A model made of one function, for what goes wrong."""

    run: object
    loc: Annotated[Array, vbss.Linear()]

    def __call__(self, *data):
        return self.run(*data)


def posterior(program, *data, start=None):
    return initial_posterior(Program(program, jnp.zeros(())), data, jr.key(0), start)


def test_the_posterior_of_a_program():
    q = initial_posterior(MIXTURE, (Y,), jr.key(0))
    assert q.names() == {"z"} and "z" in q and "y" not in q
    assert q["z"].batch_shape == (5,)
    assert not jnp.allclose(q["z"].probs[0], q["z"].probs[1])  # random, to break the symmetry
    with pytest.raises(KeyError, match=r"'x' is not a site of this posterior; it has \['z'\]"):
        q["x"]


def plate_of_indicators():
    with numpyro.plate("n", 5):
        vbss.indicator("z", LOG_WEIGHTS, axis=-2)


def test_a_start_is_where_the_posterior_is():
    probs = jax.nn.softmax(jr.normal(jr.key(1), (5, 3)), -1)
    q = initial_posterior(MIXTURE, (Y,), jr.key(0), {"z": probs})
    np.testing.assert_allclose(q["z"].probs, probs, rtol=1e-12)
    certain = initial_posterior(MIXTURE, (Y,), jr.key(0), {"z": jnp.eye(3)[jnp.array([0, 1, 2, 0, 1])]})
    np.testing.assert_allclose(certain["z"].probs.max(-1), 1, rtol=1e-12)
    assert jnp.isfinite(certain["z"].logits).all()
    states_first = posterior(plate_of_indicators, start={"z": probs})  # whichever way the program holds them
    np.testing.assert_allclose(states_first["z"].probs, probs, rtol=1e-12)
    point = posterior(lambda: vbss.point("rate", jnp.ones(3), vbss.Precision()), start={"rate": jnp.arange(3.0)})
    np.testing.assert_array_equal(point["rate"], jnp.arange(3.0))


def test_latents_that_have_a_factor():
    def program():
        with numpyro.plate("n", 4):
            z = vbss.indicator("z", LOG_WEIGHTS)
            numpyro.sample("x", vbss.Given(z, dist.Gamma(jnp.ones(3), 1.0)))
        numpyro.sample("a", dist.Normal(jnp.zeros(2), 1.0))
        numpyro.sample("b", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
        vbss.statistics("H", ComplexInverseWishart(4.0, jnp.ones(1)))
        vbss.markov_chain("c", LOG_WEIGHTS, jnp.broadcast_to(LOG_WEIGHTS, (3, 3)), 4)
        vbss.point("rate", jnp.ones(3), vbss.Precision(), given="z")

    q = posterior(program)
    assert q.names() == {"z", "x", "a", "b", "H", "c", "rate"}
    assert set(q.factors) == {"x", "a", "b", "H", "c"} and q.block_of("z") == "x"
    assert {name: q[name].batch_shape for name in "zxabHc"} == {
        "z": (4,), "x": (4,), "a": (2,), "b": (), "H": (), "c": (4,)
    }  # fmt: skip
    assert q.kind_of("rate") == (vbss.Precision(), "z")


def given_of(gate):
    def program():
        with numpyro.plate("n", 4):
            z = vbss.indicator("z", LOG_WEIGHTS)
            numpyro.sample("x", vbss.Given(gate(z), dist.Normal(jnp.zeros(3), 1.0)))

    return program


def lognormal_given():
    with numpyro.plate("n", 4):
        z = vbss.indicator("z", LOG_WEIGHTS)
        numpyro.sample("x", vbss.Given(z, dist.LogNormal(jnp.zeros(3), 1.0)))


def two_given():
    with numpyro.plate("n", 4):
        z = vbss.indicator("z", LOG_WEIGHTS)
        for name in "ab":
            numpyro.sample(name, vbss.Given(z, dist.Normal(jnp.zeros(3), 1.0)))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: numpyro.sample("x", dist.Beta(1.0, 1.0)), "latent site 'x' is Beta, which has no factor"),
        (lambda: numpyro.sample("x", dist.Categorical(logits=LOG_WEIGHTS)), "'x' is CategoricalLogits.*vbss.indicator"),
        (lambda: numpyro.sample("x", dist.Gamma(jnp.ones(2), 1.0).to_event(1)), "latent site 'x' is Independent"),
        (lognormal_given, "latent site 'x' is Given of LogNormal"),
        (two_given, "'a' and 'b' are both given 'z'"),
        (lambda: numpyro.param("a", jnp.ones(2)), r"param site 'a' has no kind: declare it with vbss.point"),
        (lambda: vbss.point("loc", jnp.ones(2), vbss.Linear()), "'loc' names both a site .* and a parameter"),
        (lambda: numpyro.sample("loc", dist.Normal(0.0, 1.0)), "'loc' names both a site .* and a parameter"),
        (given_of(lambda z: GATE), "Given: the gate must be what vbss.indicator returned, unchanged"),
        (given_of(lambda z: z * 1), "Given: the gate must be what vbss.indicator returned, unchanged"),
        (lambda: vbss.point("a", jnp.ones(2), vbss.Linear(), given="z"), "point 'a' is given 'z', which is no"),
    ],
)
def test_programs_that_have_no_posterior(program, message):
    with pytest.raises(ValueError, match=message):
        posterior(program)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"w": jnp.ones((5, 3))}, r"start: 'w' is not a latent site or point of the program; it has \['z'\]"),
        ({"y": jnp.ones(5)}, "start: 'y' is not a latent site"),
        ({"z": jnp.ones((3, 5))}, r"start: site 'z' must have shape \(5, 3\), got \(3, 5\)"),
        ({"z": jnp.ones(())}, r"start: site 'z' must have shape \(5, 3\), got \(\)"),
        ({"z": jnp.full((5, 3), -0.5)}, "start: .*'z'.* probabilities"),
        ({"z": jnp.zeros((5, 3))}, "start: .*'z'.* probabilities"),
        ({"z": jnp.full((5, 3), jnp.nan)}, "start: .*'z'.* probabilities"),
    ],
)
def test_starts_that_are_refused(start, message):
    with pytest.raises(ValueError, match=message):
        initial_posterior(MIXTURE, (Y,), jr.key(0), start)


def test_starts_of_other_blocks_that_are_refused():
    def program():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        vbss.point("rate", jnp.ones(3), vbss.Precision())
        vbss.statistics("H", ComplexInverseWishart(4.0, jnp.ones(1)))

    with pytest.raises(ValueError, match="start: site 'x' cannot be started from an array"):
        posterior(program, start={"x": jnp.zeros(())})
    with pytest.raises(ValueError, match=r"start: point 'rate' must have shape \(3,\), got \(2,\)"):
        posterior(program, start={"rate": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"start: site 'H' must have shape \(1, 1\), got \(3, 3\)"):
        posterior(program, start={"H": jnp.eye(3, dtype=complex)})
    matrix = jnp.array([[2.0 + 0j]])
    factor = posterior(program, start={"H": matrix}).factors["H"]
    np.testing.assert_allclose(factor.family.means(factor.natural)["precision"], [1 / 2], rtol=1e-12)


def test_points_are_constrained_in_numpyros_own_inference():
    def program(y):
        scale = vbss.point("variance", jnp.ones(()), vbss.Variance())
        numpyro.sample("y", dist.Normal(0.0, jnp.sqrt(scale)), obs=y)

    with relaxed_promotion():
        svi = SVI(program, lambda y: None, optax.sgd(1.0), Trace_ELBO())
        result = svi.run(jr.key(0), 3, jnp.asarray(1e-3), progress_bar=False)
    assert 0 < result.params["variance"] < 1
