"""The mixture of complex angular central Gaussians: derivation, what it is invariant to, separation, float32."""

from math import lgamma, log

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro.infer.util import log_density

import vbss
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexAngularCentralGaussian
from vbss.models import CACGMM
from vbss.models.cacgmm_start import common_activity

FREQUENCIES, FRAMES, SIZE = 24, 70, 3


def _scene(seed, noise=0.02):
    """Two sources whose bins rise and fall together, behind other filters at every frequency: (F, T, M), (F, T, 2)."""
    rng = np.random.default_rng(seed)
    activity = rng.gamma(0.3, size=(1, FRAMES, 2))
    energy = activity * rng.gamma(0.5, size=(FREQUENCIES, FRAMES, 2))
    source = np.sqrt(energy) * np.exp(2j * np.pi * rng.random(energy.shape))
    filters = _complex_normal(rng, FREQUENCIES, 2, SIZE)
    mixture = np.einsum("ftk,fkm->ftm", source, filters) + noise * _complex_normal(rng, FREQUENCIES, FRAMES, SIZE)
    return jnp.asarray(mixture), energy


def _complex_normal(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.fixture(scope="module")
def scene():
    return _scene(0)


def _accuracy(posterior, energy):
    """Energy-weighted share of the bins that the masks give to the louder source, in one order at all frequencies."""
    chosen = np.asarray(posterior["source"].probs).argmax(-1)
    share = (energy.sum(-1) * (chosen == energy.argmax(-1))).sum() / energy.sum()
    return max(share, 1 - share)


def _small(seed):
    keys = jr.split(jr.key(seed), 2)
    level = jnp.exp(jr.normal(keys[1], (2, 5, 1))).astype(complex)
    return CACGMM.init(2), jr.normal(keys[0], (2, 5, 3), complex) * level


def test_derivation_holds():
    model, mixture = _small(0)
    is_observed = jr.uniform(jr.key(1), mixture.shape[:2]) < 0.6
    is_observed = is_observed.at[:, 1].set(False).at[0, 0].set(True)  # a whole frame is missing
    data = mixture.at[0, 0].set(0), is_observed  # and a bin is silent
    report = vbss.check_derivation(model, data, key=jr.key(2), num_states=2, contract=False)
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(model.schedule)
    assert report.elbo_difference is not None and report.elbo_difference < 1e-12


def test_covariances_may_be_distributions():
    model, mixture = _small(1)
    report = vbss.check_derivation(model, mixture, key=jr.key(2), num_states=1, contract=False, at_mode=())
    assert report.passed, f"\n{report}"


def test_program_at_the_best_powers_is_the_angular_central_gaussian():
    model, mixture = CACGMM.init(2, loading=0.0), _small(3)[1]
    rng = np.random.default_rng(3)
    root = _complex_normal(rng, 2, 2, SIZE, SIZE)
    covariance = jnp.asarray(root @ root.conj().swapaxes(-1, -2))
    quadratic = jnp.einsum("ftm,fkmn,ftn->fkt", mixture.conj(), jnp.linalg.inv(covariance), mixture).real
    source = jnp.asarray(rng.integers(2, size=(2, 5)))

    @jax.jit
    def log_joint(power):
        values = {"spatial_covariance": covariance, "source": source, "power": power}
        with relaxed_promotion():
            return log_density(model, (mixture,), {}, values)[0]

    norm = jnp.linalg.norm(mixture, axis=-1)
    owner = jnp.take_along_axis(covariance, source[..., None, None], 1)
    angular = ComplexAngularCentralGaussian(owner).log_prob(mixture / norm[..., None].astype(complex))
    constant = SIZE * log(SIZE) - SIZE - lgamma(SIZE) + log(2) + log(0.5)  # and log pi
    log_prior = model.prior(SIZE, norm.dtype).log_prob(covariance).sum()
    expected = (angular + constant - 2 * SIZE * jnp.log(norm)).sum() + log_prior
    np.testing.assert_allclose(log_joint(quadratic / SIZE), expected, rtol=1e-12)
    assert log_joint(1.1 * quadratic / SIZE) < expected


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_the_same_source_at_all_frequencies(seed):
    mixture, energy = _scene(seed)
    solution = vbss.fit(CACGMM.init(2), mixture, key=jr.key(seed), max_steps=20)
    assert solution.status in (vbss.Status.converged, vbss.Status.max_steps)
    assert _accuracy(solution.posterior, energy) > 0.9


def test_start_is_common_to_all_frequencies(scene):
    mixture, energy = scene
    model, is_observed = CACGMM.init(2), jnp.ones(mixture.shape[:2], bool).at[:, 7].set(False)
    start = common_activity(model, mixture, is_observed, key=jr.key(0))
    activity = np.asarray(start["source"])
    np.testing.assert_array_equal(activity, np.broadcast_to(activity[:1], activity.shape))
    np.testing.assert_allclose(activity.sum(-1), np.ones(activity.shape[:2]))
    np.testing.assert_allclose(activity[:, 7], np.full_like(activity[:, 7], 0.5))
    true = energy.sum(0) / energy.sum((0, 2))[:, None]
    assert abs(np.corrcoef(activity[0, :, 0], true[:, 0])[0, 1]) > 0.9


def test_missing_and_silent_bins_are_integrated_out(scene):
    mixture, _ = scene
    is_observed = jnp.ones(mixture.shape[:2], bool).at[:, 40:].set(False).at[5:9, :30].set(False)
    algorithm, model = vbss.EM(tolerance=0.0), CACGMM.init(2)
    broken = jnp.where(is_observed[..., None], mixture, 1e100 * mixture[::-1])
    silent = jnp.where(is_observed[..., None], mixture, 0)
    data = ((mixture, is_observed), (broken, is_observed), (silent, jnp.ones_like(is_observed)))
    runs = [vbss.fit(model, each, algorithm, max_steps=6) for each in data]
    for run in runs[1:]:
        np.testing.assert_allclose(run.elbo, runs[0].elbo, rtol=1e-12)
        np.testing.assert_allclose(run.posterior["source"].probs, runs[0].posterior["source"].probs, atol=1e-9)
    assert np.diff(runs[0].elbo).min() > 0
    pauses = np.asarray(runs[0].posterior["source"].probs)[:, 40:]
    np.testing.assert_allclose(pauses, np.full_like(pauses, 0.5), atol=1e-9)


def test_neither_levels_nor_rotations_of_the_microphones_count(scene):
    mixture, _ = scene
    rng = np.random.default_rng(4)
    rotations = np.linalg.qr(_complex_normal(rng, FREQUENCIES, SIZE, SIZE))[0]
    levels = np.exp(3 * rng.normal(size=(*mixture.shape[:2], 1)))
    changed = jnp.asarray(levels * np.einsum("fmn,ftn->ftm", rotations, mixture))
    masks = [
        vbss.fit(CACGMM.init(2), x, vbss.EM(tolerance=0.0), max_steps=6).posterior["source"].probs
        for x in (mixture, changed)
    ]
    np.testing.assert_allclose(masks[1], masks[0], atol=1e-8)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_float32_is_finite_with_silence_and_rank_one_bins(noise):
    mixture, energy = _scene(5, noise)
    mixture = mixture.at[:, :5].set(0)  # digital silence
    mixture = mixture.at[0].set(mixture[0, :, :1])  # all microphones hear the same
    solution = vbss.fit(CACGMM.init(2), mixture.astype(jnp.complex64), vbss.EM(tolerance=0.0), max_steps=40)
    assert solution.status is vbss.Status.max_steps  # monotone within rounding
    assert solution.elbo.dtype == np.float32
    for leaf in jax.tree.leaves(solution.posterior):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
    assert _accuracy(solution.posterior, energy) > 0.8


def test_bad_input_is_refused_by_name(scene):
    mixture, _ = scene
    for data, message in (
        (mixture[0], "mixture must have shape"),
        (mixture[..., :1], "at least 2 microphones"),
        (mixture.real.astype(float), "complex"),
        (mixture * jnp.nan, "nan"),
        (mixture * 0, "silent"),
        ((mixture, jnp.zeros(mixture.shape[:2], bool)), "silent"),
        ((mixture, jnp.ones(mixture.shape[:2])), "is_observed must be boolean"),
    ):
        with pytest.raises(ValueError, match=message):
            vbss.fit(CACGMM.init(2), data)
    for arguments, message in (
        ({"num_sources": 0}, "num_sources"),
        ({"num_sources": 2, "prior_weight": 0.0}, "prior_weight"),
        ({"num_sources": 2, "loading": -1.0}, "loading"),
    ):
        with pytest.raises(vbss.errors.InputError, match=message):
            CACGMM.init(**arguments)
