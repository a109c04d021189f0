"""The linear dynamical system: exact smoothing against a dense normal and statsmodels, and EM that only climbs."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from state_space_reference import smoothed

import vbss
from vbss.context import relaxed_promotion
from vbss.models import LinearDynamicalSystem

LENGTH, CHANNELS, LATENTS = 20, 3, 2
TURN = 0.95 * np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])


def true_model():
    generator = np.random.default_rng(0)
    root = generator.standard_normal((2, LATENTS, LATENTS + 2))
    precisions = root @ root.swapaxes(-1, -2) + np.eye(LATENTS)
    return LinearDynamicalSystem(
        initial_loc=jnp.asarray(generator.standard_normal(LATENTS)),
        initial_precision=jnp.asarray(precisions[0]),
        transition=jnp.asarray(TURN),
        precision=jnp.asarray(2 * precisions[1]),
        loading=jnp.asarray(generator.standard_normal((CHANNELS, LATENTS))),
        offset=jnp.asarray(generator.standard_normal(CHANNELS)),
        observation_precision=jnp.array([2.0, 4.0, 8.0]),
    )


def simulated(model, length):
    with relaxed_promotion():
        blank = jnp.zeros((length, CHANNELS))
        return Predictive(handlers.uncondition(model), num_samples=1)(jr.key(1), blank)["observations"][0]


@pytest.fixture(scope="module")
def problem():
    model = true_model()
    return model, simulated(model, LENGTH)


def masks():
    generator = np.random.default_rng(2)
    return {
        "all": None,
        "entries": jnp.asarray(generator.random((LENGTH, CHANNELS)) < 0.6),
        "times": jnp.asarray(np.arange(LENGTH) % 4 != 0).at[-2:].set(False),
    }


def reference(model, observations, is_observed=None):
    chain = {key: getattr(model, key) for key in ("initial_loc", "initial_precision", "transition", "precision")}
    return smoothed(chain, model.loading, model.offset, model.observation_precision, observations, is_observed)


def bound_and_states(model, observations, is_observed=None):
    """The bound and the states' means and covariances once these have been updated."""
    data = (observations,) if is_observed is None else (observations, is_observed)
    algorithm = vbss.EM(frozen=model.parameter_kinds(), probes=False)
    solution = vbss.fit(model, data, algorithm, max_steps=1)
    states = solution.posterior["state"]
    return solution.elbo[-1], states.mean, states.covariance_matrix


@pytest.mark.parametrize("is_observed", masks().values(), ids=masks())
def test_the_bound_is_the_log_likelihood_and_the_states_are_smoothed(problem, is_observed):
    model, observations = problem
    bound, mean, covariance = bound_and_states(model, observations, is_observed)
    log_likelihood, expected_mean, expected_covariance = reference(model, observations, is_observed)
    np.testing.assert_allclose(bound, log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-10)
    times = np.arange(LENGTH)
    np.testing.assert_allclose(covariance, expected_covariance[times, :, times], atol=1e-10)


@pytest.mark.parametrize("is_observed", masks().values(), ids=masks())
def test_statsmodels_smooths_alike(problem, is_observed):
    name = "statsmodels.tsa.statespace.kalman_smoother"
    smoother = pytest.importorskip(name, reason="statsmodels is not installed")
    model, observations = problem
    bound, mean, _ = bound_and_states(model, observations, is_observed)
    values = np.array(observations)
    if is_observed is not None:
        chosen = np.asarray(is_observed).reshape(LENGTH, -1)
        values = np.where(chosen, values, np.nan)
    system = smoother.KalmanSmoother(k_endog=CHANNELS, k_states=LATENTS)
    system.bind(np.ascontiguousarray(values))
    system["design"] = np.asarray(model.loading)
    system["obs_intercept"] = np.asarray(model.offset)[:, None]
    system["obs_cov"] = np.diag(1 / np.asarray(model.observation_precision))
    system["transition"] = np.asarray(model.transition)
    system["selection"] = np.eye(LATENTS)
    system["state_cov"] = np.linalg.inv(model.precision)
    system.initialize_known(np.asarray(model.initial_loc), np.linalg.inv(model.initial_precision))
    result = system.smooth()
    np.testing.assert_allclose(bound, result.llf, rtol=1e-6)
    np.testing.assert_allclose(mean, result.smoothed_state.T, atol=1e-6)


def test_what_was_not_observed_does_not_matter(problem):
    model, observations = problem
    is_observed = masks()["entries"]
    garbage = jnp.where(is_observed, observations, 1e30)
    for one, other in zip(
        bound_and_states(model, observations, is_observed), bound_and_states(model, garbage, is_observed), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def learnt():
    model = true_model()
    observations = simulated(model, 150)
    start = LinearDynamicalSystem.init(observations, LATENTS, key=jr.key(0))
    return model, observations, vbss.fit(start, observations, vbss.EM(tolerance=0.0), max_steps=60)


def test_em_climbs_to_the_truth(learnt):
    truth, observations, solution = learnt
    assert (np.diff(solution.elbo) > 0).all()
    np.testing.assert_allclose(solution.elbo[-1], reference(solution.model, observations)[0], rtol=1e-5)
    assert solution.elbo[-1] > reference(truth, observations)[0]
    # What no choice of coordinates for the states changes: how they turn and fade.
    found = np.sort_complex(np.linalg.eigvals(solution.model.transition))
    np.testing.assert_allclose(found, np.sort_complex(np.linalg.eigvals(TURN)), atol=0.1)


def test_single_precision_far_from_the_origin(learnt):
    _, observations, double = learnt
    observations = observations.astype(jnp.float32) + 300
    start = LinearDynamicalSystem.init(observations, LATENTS, key=jr.key(0))
    solution = vbss.fit(start, observations, vbss.EM(tolerance=0.0, probes=False), max_steps=10)
    assert {leaf.dtype for leaf in jax.tree.leaves(solution.model)} == {jnp.dtype(jnp.float32)}
    # Other draws start it elsewhere than in double precision: only the level is the same.
    assert (np.diff(solution.elbo) > -1e-4 * np.abs(solution.elbo[1:])).all()
    assert abs(solution.elbo[-1] - double.elbo[-1]) < 0.2 * abs(double.elbo[-1])


def test_bad_input_is_refused(problem):
    model, observations = problem

    def start(observations, num_latents=1, is_observed=None):
        return LinearDynamicalSystem.init(observations, num_latents, key=jr.key(0), is_observed=is_observed)

    with pytest.raises(ValueError, match=r"observations must have shape \(T, D\) with T >= 2.*\(1, 3\)"):
        start(observations[:1])
    with pytest.raises(ValueError, match="observations must be real floating numbers"):
        start(observations.astype(int))
    with pytest.raises(ValueError, match="observations must be finite"):
        start(observations.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="column 1 is constant or not observed"):
        start(observations.at[:, 1].set(4.0))
    with pytest.raises(ValueError, match="column 2 is constant or not observed"):
        start(observations, is_observed=jnp.ones((LENGTH, CHANNELS), bool).at[:, 2].set(False))
    with pytest.raises(ValueError, match="num_latents must be a whole number, 1 or more"):
        start(observations, 0)
    with pytest.raises(ValueError, match=r"is_observed must be boolean of shape \(20,\) or \(20, 3\)"):
        model.validate(observations, jnp.ones(3, bool))
    with pytest.raises(ValueError, match="is_observed must be boolean"):
        model.validate(observations, jnp.ones(LENGTH))
    with pytest.raises(ValueError, match="3, the rows of the model's loading"):
        model.validate(observations[:, :2])
