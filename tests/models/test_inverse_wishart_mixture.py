"""The inverse-Wishart mixture: derivation, what its bound is, its class of noise, starts, and float32."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.infer import Predictive

import vbss
from vbss.audio import azimuth_grid, steering_vectors
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexInverseWishart
from vbss.factorization import initial_posterior
from vbss.hermitian import inverse_and_log_determinant, pack, pack_outer
from vbss.inference.collapsed import collapse
from vbss.models import InverseWishartMixture
from vbss.models.cgmm_start import given_directions, peak_directions

NUM_DIRECTIONS = 24
TRUE_DIRECTIONS = (3, 14)


def _problem(key, has_noise):
    """Three directions, two sources, four frames of two microphones at two frequencies."""
    key_steering, key_mixture = jr.split(key)
    phases = 2 * jnp.pi * jr.uniform(key_steering, (2, 3, 2))
    steering = jax.lax.complex(jnp.cos(phases), jnp.sin(phases))
    model = InverseWishartMixture.init(steering, 2, has_noise=has_noise)
    return model, jr.normal(key_mixture, (2, 4, 2), complex)


@pytest.fixture(scope="module")
def steering():
    """A circle of three microphones of 8 cm diameter, 24 directions, 40 bins up to 4 kHz."""
    angle = 2 * np.pi * np.arange(3) / 3
    positions = 0.04 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    return steering_vectors(positions, azimuth_grid(NUM_DIRECTIONS), jnp.linspace(0.0, 4000.0, 40))


@pytest.fixture(scope="module")
def scene(steering):
    """Two sparse plane waves in white noise: the mixture (F, T, M), and the energies of all three (F, T, 3)."""
    rng = np.random.default_rng(0)
    frequencies, _, size = steering.shape
    amplitude = np.sqrt(rng.gamma(0.1, size=(frequencies, 60, 2)))
    waves = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    white = rng.normal(size=(2, frequencies, 60, size))
    noise = 0.03 * (white[0] + 1j * white[1])
    mixture = np.einsum("ftk,fkm->ftm", waves, np.asarray(steering)[:, list(TRUE_DIRECTIONS)]) + noise
    energy = np.concatenate([amplitude**2, (np.abs(noise) ** 2).mean(-1, keepdims=True)], -1)
    return jnp.asarray(mixture), energy


def _directions(posterior):
    return tuple(np.asarray(posterior["direction"].probs).argmax(-1))


def _assert_derived(model, data, contract):
    report = vbss.check_derivation(model, data, key=jr.key(10), num_states=2, contract=contract)
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(model.schedule)
    assert report.elbo_difference is not None and report.elbo_difference < 1e-12


def test_derivation_holds():
    _assert_derived(*_problem(jr.key(0), has_noise=True), contract=True)


def test_derivation_holds_without_noise_and_with_missing_bins():
    model, mixture = _problem(jr.key(1), has_noise=False)
    is_observed = (jr.uniform(jr.key(2), mixture.shape[:2]) < 0.6).at[:, 1].set(False)  # a whole frame
    _assert_derived(model, (mixture, is_observed), contract=False)


def test_derivation_holds_with_a_distribution_of_the_covariances():
    model, mixture = _problem(jr.key(3), has_noise=True)
    report = vbss.check_derivation(model, mixture, key=jr.key(12), num_states=2, at_mode=(), contract=False)
    assert report.passed, f"\n{report}"
    assert all(check.gradient is not None for check in report.blocks)


@eqx.filter_jit
def _textbook(model, mixture, points, covariance):
    """log p(x, H), one covariance at a time, its indicators summed out; the noise has H = I."""
    size = mixture.shape[-1]
    scales = (model.degrees_of_freedom - size) * model.templates
    log_prior = ComplexInverseWishart(model.degrees_of_freedom, scales[:, None]).log_prob(covariance[:, :, None])
    identity = jnp.broadcast_to(jnp.eye(size, dtype=complex), covariance[:, :1].shape)
    precision, log_determinant = inverse_and_log_determinant(pack(jnp.concatenate([covariance, identity], 1)))
    power = jnp.moveaxis(points["power"], 1, -1)
    fit = jnp.einsum("ftp,fkp->ftk", pack_outer(mixture), precision) / power
    log_normal = -fit - log_determinant[:, None] - size * jnp.log(jnp.pi * power)
    of_directions = logsumexp(points["log_direction_weights"] + log_prior.sum(0), axis=-1).sum()
    return of_directions + logsumexp(points["log_mixing_weights"] + log_normal, axis=-1).sum()


def test_bound_is_the_density_with_the_indicators_summed_out():
    model, mixture = _problem(jr.key(4), has_noise=True)
    model = model.replace(loading=jnp.zeros_like(model.loading))
    algorithm = vbss.EM()
    posterior = initial_posterior(model, (mixture,), jr.key(5))
    observations = algorithm.constants(model, posterior, (mixture,))

    @eqx.filter_jit
    def tight(posterior):
        for block in ("direction", "source"):
            _, posterior = algorithm.update(model, posterior, (mixture,), block, observations)
        return algorithm.elbo(model, posterior, (mixture,), observations)

    covariance = posterior["spatial_covariance"].v
    collapsed = collapse(model, (mixture,), jr.key(6), posterior.points)  # raises if the indicators interact
    summed = eqx.filter_jit(collapsed.log_density)({"spatial_covariance": covariance}, observations)
    with relaxed_promotion():
        textbook = _textbook(model, mixture, posterior.points, covariance)
    np.testing.assert_allclose([tight(posterior), summed], [textbook, textbook], rtol=1e-12)


@pytest.mark.parametrize(("has_noise", "at_mode"), [(False, None), (True, None), (True, ())])
def test_two_plane_waves_are_separated_and_located(steering, scene, has_noise, at_mode):
    mixture, energy = scene
    model = InverseWishartMixture.init(steering, 2, has_noise=has_noise)
    solution = vbss.fit(model, mixture, vbss.EM(tolerance=0.0, at_mode=at_mode), max_steps=10)
    assert np.diff(solution.elbo).min() > 0
    found = _directions(solution.posterior)
    assert sorted(found) == list(TRUE_DIRECTIONS)
    probs = np.asarray(solution.posterior["source"].probs)[5:]  # above 500 Hz
    assert probs.shape[-1] == model.num_classes == 2 + has_noise
    owner, weight = energy[5:].argmax(-1), energy[5:].sum(-1)
    is_source = owner < 2
    chosen = probs[..., np.argsort(found)].argmax(-1)
    assert np.average(chosen[is_source] == owner[is_source], weights=weight[is_source]) > 0.95
    if has_noise:  # the last class
        assert probs[~is_source][:, -1].mean() > 0.6
        assert np.average(probs[is_source][:, -1], weights=weight[is_source]) < 0.2


@eqx.filter_jit
def _log_priors(model, direction, covariance):
    """By the model, and by its templates: one-hot directions in a plain distribution."""
    scales = (model.degrees_of_freedom - 3) * model.templates[:, direction.argmax(-1)]
    plain = ComplexInverseWishart(model.degrees_of_freedom, scales)
    return model.prior(direction).log_prob(covariance), plain.log_prob(covariance)


def test_log_prior_is_that_of_the_direction_and_affine_in_it(steering):
    model = InverseWishartMixture.init(steering[:3], 2)
    chosen = jax.nn.one_hot(jnp.array(TRUE_DIRECTIONS), NUM_DIRECTIONS, dtype=float)
    covariance = jnp.broadcast_to(jnp.eye(3, dtype=complex), (3, 2, 3, 3))
    first, expected = _log_priors(model, chosen, covariance)
    np.testing.assert_allclose(first, expected, rtol=1e-12)
    second, _ = _log_priors(model, chosen[::-1], covariance)
    mixed, _ = _log_priors(model, 0.25 * chosen + 0.75 * chosen[::-1], covariance)
    np.testing.assert_allclose(mixed, 0.25 * first + 0.75 * second, rtol=1e-12)


def test_start_has_the_classes_of_the_model(steering, scene):
    mixture, _ = scene
    plain, noisy = (InverseWishartMixture.init(steering, 2, has_noise=has_noise) for has_noise in (False, True))
    direction = peak_directions(noisy, mixture)
    start, expected = noisy.given_directions(mixture, direction), given_directions(plain, mixture, direction)
    np.testing.assert_array_equal(start["direction"], direction)
    np.testing.assert_allclose(start["source"][..., :2], 2 / 3 * expected["source"])
    np.testing.assert_allclose(start["source"].sum(-1), np.ones(mixture.shape[:2]))
    np.testing.assert_array_equal(start["power"][:, :2], expected["power"])
    np.testing.assert_allclose(start["power"][:, 2], (np.abs(mixture) ** 2).mean(-1))
    for name, value in plain.given_directions(mixture, direction).items():
        np.testing.assert_array_equal(value, expected[name])


def test_float32_is_finite_with_silence_and_rank_one_bins(steering, scene):
    mixture = scene[0].at[:, :5].set(0).astype(jnp.complex64)  # digital silence; f = 0 has rank one
    model = InverseWishartMixture.init(steering.astype(jnp.complex64), 2, has_noise=True)
    solution = vbss.fit(model, mixture, vbss.EM(tolerance=0.0), max_steps=20)
    assert solution.status is vbss.Status.max_steps  # monotone within rounding
    assert solution.elbo.dtype == np.float32 and np.isfinite(solution.elbo).all()
    for leaf in jax.tree.leaves(solution.posterior):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
    assert sorted(_directions(solution.posterior)) == list(TRUE_DIRECTIONS)


def test_program_samples():
    model, mixture = _problem(jr.key(7), has_noise=True)
    with relaxed_promotion():
        drawn = Predictive(handlers.uncondition(model), num_samples=2)(jr.key(0), mixture)
    assert drawn["mixture"].shape == (2, *mixture.shape)
    assert drawn["source"].shape == (2, *mixture.shape[:2]) and drawn["direction"].shape == (2, 2)
    assert drawn["spatial_covariance"].shape == (2, 2, 2, 2, 2)


def test_bad_input_is_refused_by_name(steering, scene):
    with pytest.raises(ValueError, match="num_sources must be between 1 and the 24"):
        InverseWishartMixture.init(steering, NUM_DIRECTIONS + 1, has_noise=True)
    with pytest.raises(ValueError, match="mixture must have shape"):
        vbss.fit(InverseWishartMixture.init(steering, 2), scene[0][:3])
