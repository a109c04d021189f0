"""The core's contract: five programs through one mechanism, against brute force over the programs' own log density."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro.infer.util import log_density
from programs import MODELS, VESSL, gaussian_mixture, hidden_markov, lda_cgmm, student_mixture, vessl
from scipy import stats

import vbss
from vbss.context import relaxed_promotion
from vbss.expectation import derived_update, elbo, expected_log_joint, observe
from vbss.factorization import initial_posterior
from vbss.inference import EM


def _states(shape, num_states):
    """All assignments of `num_states` states to an array of the given shape."""
    all_states = itertools.product(range(num_states), repeat=int(np.prod(shape)))
    return jnp.asarray(list(all_states)).reshape(-1, *shape)


@eqx.filter_jit
def _log_joint(model, data, sites):
    """NumPyro's log density of the program, over a batch of values of its sites."""

    def one(values):
        with relaxed_promotion():
            return log_density(model, data, {}, values)[0]

    return jax.vmap(one)(sites)


def _problem(make, key, *shape):
    with relaxed_promotion():
        return make(key, *shape)


_updated = eqx.filter_jit(lambda m, p, data, observations, block: derived_update(m, p, data, block, observations))
_elbo = eqx.filter_jit(elbo)
_expected_log_joint = eqx.filter_jit(expected_log_joint)


def _stepped(problem, seed=0, steps=2):
    """A problem and its posterior after a few steps, so that nothing is at a special place."""
    model, data = problem
    posterior = initial_posterior(model, data, jr.key(seed))
    observations = observe(model, posterior, data)
    for _ in range(steps):
        for block in EM().schedule(model, posterior):
            model, posterior = _updated(model, posterior, data, observations, block)
    return model, posterior, data, observations


@pytest.mark.parametrize(
    ("site", "problem"),
    [("component", (gaussian_mixture, 6, 1, 2)), ("z", (hidden_markov, 6, 3))],
    ids=["gaussian mixture", "hidden markov"],
)
def test_exact_posterior_of_one_discrete_site_is_brute_force(site, problem):
    make, *shape = problem
    model, posterior, data, observations = _stepped(_problem(make, jr.key(1), *shape), steps=1)
    states = _states((6,), model.loc.shape[0])
    log_joint = _log_joint(model, data, {site: states})
    weights = jax.nn.softmax(log_joint)
    expected = jnp.einsum("s,snk->nk", weights, jax.nn.one_hot(states, model.loc.shape[0]))
    _, posterior = _updated(model, posterior, data, observations, site)
    np.testing.assert_allclose(posterior[site].probs, expected, atol=1e-12)
    bound = _elbo(model, posterior, data, observations)
    np.testing.assert_allclose(bound, jax.nn.logsumexp(log_joint), rtol=0, atol=1e-11)


def test_hidden_markov_pairs_are_brute_force():
    model, posterior, data, observations = _stepped(_problem(hidden_markov, jr.key(2), 6, 3))
    states = _states((6,), 3)
    weights = jax.nn.softmax(_log_joint(model, data, {"z": states}))
    onehot = jax.nn.one_hot(states, 3)
    pairs = jnp.einsum("s,sti,stj->tij", weights, onehot[:, :-1], onehot[:, 1:])
    _, posterior = _updated(model, posterior, data, observations, "z")
    factor = posterior.factors["z"]
    np.testing.assert_allclose(factor.family.means(factor.natural)["pair"], pairs, atol=1e-12)


def test_gaussian_mixture_parameters_are_weighted_moments():
    model, posterior, data, observations = _stepped(_problem(gaussian_mixture, jr.key(3)))
    probs, y = posterior["component"].probs, data[0]
    for block in ("log_weights", "loc", "precision"):
        model, _ = _updated(model, posterior, data, observations, block)
    counts = probs.sum(0)
    mean = jnp.einsum("nk,nd->kd", probs, y) / counts[:, None]
    centred = y[None] - mean[:, None]
    covariance = jnp.einsum("nk,kni,knj->kij", probs, centred, centred) / counts[:, None, None]
    np.testing.assert_allclose(jnp.exp(model.log_weights), counts / len(y), atol=1e-12)
    np.testing.assert_allclose(model.loc, mean, atol=1e-11)
    np.testing.assert_allclose(jnp.linalg.inv(model.precision), covariance, rtol=1e-8, atol=1e-10)


def test_student_mixture_is_the_closed_form():
    model, posterior, data, observations = _stepped(_problem(student_mixture, jr.key(4)))
    y, size = data[0], data[0].shape[-1]
    _, posterior = _updated(model, posterior, data, observations, "u")
    centred = y[:, None] - model.loc[None]
    distance = jnp.einsum("nki,kij,nkj->nk", centred, model.precision, centred)
    natural = posterior.factors["u"].natural
    np.testing.assert_allclose(natural["log"] + 1, jnp.full(distance.shape, model.shape + size / 2), rtol=1e-9)
    np.testing.assert_allclose(-natural["linear"], model.shape + distance / 2, rtol=1e-9)
    scatter = np.linalg.inv(np.asarray(model.precision))
    log_likelihood = np.stack(
        [
            stats.multivariate_t.logpdf(np.asarray(y), np.asarray(loc), matrix, df=2 * float(model.shape))
            for loc, matrix in zip(model.loc, scatter, strict=True)
        ],
        -1,
    ) + np.asarray(model.log_weights)
    np.testing.assert_allclose(posterior["z"].probs, jax.nn.softmax(log_likelihood, -1), atol=1e-10)
    bound = _elbo(model, posterior, data, observations)
    np.testing.assert_allclose(bound, np.logaddexp.reduce(log_likelihood, -1).sum(), rtol=1e-11)


def test_cgmm_expectation_is_enumeration_of_the_program():
    model, posterior, data, observations = _stepped(_problem(lda_cgmm, jr.key(5), 2, 2, 3, 2, 2))
    sources, directions = _states((2, 2), 2), _states((2,), 3)
    source, direction = (array.reshape(-1, *array.shape[2:]) for array in _pairs(sources, directions))
    points = {name: jnp.broadcast_to(p, (len(source), *p.shape)) for name, p in posterior.points.items()}
    covariance = posterior["spatial_covariance"].v
    covariance = jnp.broadcast_to(covariance, (len(source), *covariance.shape))
    sites = {"source": source, "direction": direction, "spatial_covariance": covariance, **points}
    log_joint = _log_joint(model, data, sites)
    z, w = posterior["source"].probs, posterior["direction"].probs
    log_q = _log_prob(z, source) + _log_prob(w, direction)
    expected = (jnp.exp(log_q) * log_joint).sum()
    np.testing.assert_allclose(_expected_log_joint(model, posterior, data, observations), expected, rtol=1e-11)
    np.testing.assert_allclose(
        _elbo(model, posterior, data, observations), (jnp.exp(log_q) * (log_joint - log_q)).sum()
    )
    # The optimum of q(source) is the exponential of the program's expectation under q(direction).
    given_direction = jnp.einsum("d,sd->s", jnp.exp(_log_prob(w, directions)), log_joint.reshape(len(sources), -1))
    onehot = jax.nn.one_hot(sources, 2)
    weights = jax.nn.softmax(given_direction)
    _, posterior = _updated(model, posterior, data, observations, "source")
    np.testing.assert_allclose(posterior["source"].probs, jnp.einsum("s,sftk->ftk", weights, onehot), atol=1e-11)


def _pairs(a, b):
    """All pairs of rows of two batches."""
    shape = (len(a), len(b))
    return jnp.broadcast_to(a[:, None], (*shape, *a.shape[1:])), jnp.broadcast_to(b[None], (*shape, *b.shape[1:]))


def _log_prob(probs, states):
    """log q of a batch of assignments under independent categoricals."""
    onehot = jax.nn.one_hot(states, probs.shape[-1])
    return (onehot * jnp.log(jnp.maximum(probs, 1e-300))[None]).sum(tuple(range(1, onehot.ndim)))


def test_vessl_expectation_is_enumeration_and_cubature_of_the_program():
    model, posterior, data, observations = _stepped(_problem(vessl, jr.key(6), 2, 2, 2, 2, 2))
    pieces, masks = _states((2,), 2), _states((2, 2), 2)
    factor = posterior.factors["x"]
    points = factor.family.points(factor.natural)  # (points, m, k, l)
    which = _states((2,), points.shape[0])  # one point for each source
    piece, mask = _pairs(pieces, masks)
    piece, mask = piece.reshape(-1, 2), mask.reshape(-1, 2, 2)
    log_q = _log_prob(posterior["z"].probs, piece) + _log_prob(posterior["w"].probs, mask)
    total = 0.0
    for choice in which:
        x = points[choice, jnp.arange(2)]  # (m, k, l)
        chosen = jnp.take_along_axis(x[None], piece[:, :, None, None], 2)  # under the true piece: (s, m, 1, l)
        log_joint = _log_joint(model, data, {"z": piece, "x": chosen, "w": mask})
        total += (jnp.exp(log_q) * log_joint).sum() / len(which)
    np.testing.assert_allclose(_expected_log_joint(model, posterior, data, observations), total, rtol=1e-11)


def test_vessl_with_one_source_has_the_exact_evidence():
    model, (y, observed) = _problem(vessl, jr.key(7), 3, 3, 1, 3, 2)
    data = (y, observed)
    posterior = initial_posterior(model, data, jr.key(0))
    observations = observe(model, posterior, data)
    for block in ("w", "x"):
        _, posterior = _updated(model, posterior, data, observations, block)
    bound = _elbo(model, posterior, data, observations)
    np.testing.assert_allclose(bound, _vessl_evidence(model, np.asarray(y), np.asarray(observed)), rtol=1e-11)


def _vessl_evidence(model: VESSL, y, observed):
    """log p(y) by dense Gaussians: all observed entries jointly, under each affine piece."""
    time, feature = np.nonzero(observed)
    log_terms = []
    for k in range(model.center.shape[0]):
        slope, offset = np.asarray(model.slope[k])[feature], np.asarray(model.offset[k])[feature]
        mean = slope @ np.asarray(model.center[k]) + offset
        noise = np.diag(1 / np.asarray(model.precision)[feature])
        covariance = slope @ np.asarray(model.covariance[k]) @ slope.T + noise
        log_terms.append(float(model.log_weights[k]) + stats.multivariate_normal.logpdf(y[observed], mean, covariance))
    return np.logaddexp.reduce(log_terms)


_SHAPES = {
    "gaussian mixture": [(40, 2, 3)],
    "student mixture": [(40, 2, 2)],
    "lda-cgmm": [(2, 3, 3, 2, 2)],
    "vessl": [(3, 4, 2, 2, 2)],
    "hidden markov": [(8, 3)],
    "student mixture, learnt": [(30, 1, 2)],
    "bayesian mixture": [(20, 2, 3)],
    "factor analysis": [(12, 4, 2)],
    "linear dynamical": [(6, 3, 2)],
    "switching linear dynamical": [(6, 2, 2, 2)],
}


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, shapes in _SHAPES.items() for shape in shapes])
def test_no_block_lowers_the_bound_on_200_random_problems(name, shape):
    def bounds(key):
        model, data = _problem(MODELS[name], key, *shape)
        posterior = initial_posterior(model, data, jr.fold_in(key, 1))
        observations = observe(model, posterior, data)
        algorithm = EM(updates="derived")

        def step(carry, _):
            model, posterior = carry
            trace = []
            for block in algorithm.schedule(model, posterior):
                model, posterior = algorithm.update(model, posterior, data, block, observations)
                trace.append(_elbo(model, posterior, data, observations))
            return (model, posterior), jnp.stack(trace)

        _, trace = jax.lax.scan(step, (model, posterior), length=5)
        return jnp.concatenate([_elbo(model, posterior, data, observations)[None], trace.ravel()])

    trace = jax.jit(jax.vmap(bounds))(jr.split(jr.key(11), 200 // len(_SHAPES[name])))
    assert np.isfinite(trace).all()
    assert np.diff(trace, axis=1).min() > -1e-9


@pytest.mark.parametrize("name", MODELS)
def test_every_block_is_stationary_after_its_update(name):
    model, data = _problem(MODELS[name], jr.key(21))
    report = vbss.check_derivation(model, data, key=jr.key(22), num_states=2, contract=False)
    assert report.passed, f"\n{report}"
    # Degrees of freedom have no exact update: a few numerical steps, which may not reach the top.
    exact = [check for check in report.blocks if check.block != "degrees_of_freedom"]
    assert max(check.gradient for check in exact) < 1e-9
    assert max(check.difference or 0 for check in exact) < 1e-8
