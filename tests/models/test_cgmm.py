"""The LDA-style complex Gaussian mixture: derivation, starts, invariances, float32, and its program under NumPyro."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from programs import lda_cgmm

import vbss
from vbss.audio import azimuth_grid, steering_vectors
from vbss.context import relaxed_promotion
from vbss.models import LDACGMM
from vbss.models.cgmm_start import direction_groups, given_masks

NUM_DIRECTIONS = 24
TRUE_DIRECTIONS = (3, 14)


@pytest.fixture(scope="module")
def array():
    """A circle of four microphones of 8 cm diameter, 24 directions, 40 bins up to 4 kHz."""
    angle = 2 * np.pi * np.arange(4) / 4
    positions = 0.04 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    frequencies = jnp.linspace(0.0, 4000.0, 40)
    return steering_vectors(positions, azimuth_grid(NUM_DIRECTIONS), frequencies)


def _plane_waves(steering, seed, noise=0.03, frames=60):
    """Two sparse plane waves; returns the mixture (F, T, M) and the energies of the sources (F, T, 2)."""
    rng = np.random.default_rng(seed)
    num_frequencies, _, size = steering.shape
    amplitude = np.sqrt(rng.gamma(0.2, size=(num_frequencies, frames, 2)))
    source = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    mixture = np.einsum("ftk,fkm->ftm", source, np.asarray(steering)[:, list(TRUE_DIRECTIONS)])
    white = rng.normal(size=(2, num_frequencies, frames, size))
    return jnp.asarray(mixture + noise * (white[0] + 1j * white[1])), amplitude**2


@pytest.fixture(scope="module")
def scene(array):
    steering = array
    mixture, energy = _plane_waves(steering, 0)
    return LDACGMM.init(steering, 2), mixture, energy


def _accuracy(posterior, energy):
    """Energy-weighted share of the bins above 500 Hz that the masks give to the louder source (better order)."""
    chosen = np.asarray(posterior["source"].probs).argmax(-1)[5:]
    louder, weight = energy.argmax(-1)[5:], energy.sum(-1)[5:]
    share = (weight * (chosen == louder)).sum() / weight.sum()
    return max(share, 1 - share)


@pytest.mark.parametrize("seed", range(3))
def test_derivation_holds(seed):
    with relaxed_promotion():
        model, data = lda_cgmm(jr.key(seed), 2, 4, 3, 3, 2)
    report = vbss.check_derivation(model, data, key=jr.key(seed + 10), num_states=2, contract=False)
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(model.schedule)
    assert report.elbo_difference is not None and report.elbo_difference < 1e-12


@pytest.mark.parametrize("seed", range(2))
def test_derivation_holds_with_missing_bins(seed):
    with relaxed_promotion():
        model, (mixture,) = lda_cgmm(jr.key(seed), 2, 4, 3, 3, 2)
    is_observed = jr.uniform(jr.key(seed), mixture.shape[:2]) < 0.6
    is_observed = is_observed.at[:, 1].set(False)  # a whole frame
    report = vbss.check_derivation(model, (mixture, is_observed), key=jr.key(seed + 10), num_states=2, contract=False)
    assert report.passed, f"\n{report}"
    assert report.elbo_difference is not None and report.elbo_difference < 1e-12


@pytest.mark.parametrize("updates", ["closed", "derived"])
def test_missing_bins_are_integrated_out(scene, updates):
    model, mixture, _ = scene
    is_observed = jnp.ones(mixture.shape[:2], bool).at[:, 40:].set(False).at[5:9, :30].set(False)
    broken = jnp.where(is_observed[..., None], mixture, 1e100 * mixture[::-1])
    algorithm = vbss.EM(tolerance=0.0, updates=updates)
    runs = [vbss.fit(model, (data, is_observed), algorithm, max_steps=6) for data in (mixture, broken)]
    np.testing.assert_allclose(runs[0].elbo, runs[1].elbo, rtol=1e-12)
    assert np.diff(runs[0].elbo).min() > 0
    masks = np.asarray(runs[0].posterior["source"].probs)
    np.testing.assert_allclose(masks[:, 40:], np.full_like(masks[:, 40:], 0.5), atol=1e-9)  # pauses are anyone's
    # As if these frames did not exist.
    short = vbss.fit(model, (mixture[:, :40], is_observed[:, :40]), algorithm, max_steps=6)
    np.testing.assert_allclose(np.diff(short.elbo), np.diff(runs[0].elbo), rtol=1e-9)
    np.testing.assert_allclose(short.posterior["source"].probs, masks[:, :40], atol=1e-9)


def test_hand_derived_and_derived_runs_agree(scene):
    model, mixture, _ = scene
    runs = [
        vbss.fit(model, mixture, vbss.EM(tolerance=0.0, updates=updates), max_steps=5)
        for updates in ("closed", "derived")
    ]
    np.testing.assert_allclose(runs[0].elbo, runs[1].elbo, rtol=1e-11)
    np.testing.assert_allclose(runs[0].posterior["source"].probs, runs[1].posterior["source"].probs, atol=1e-8)
    assert np.diff(runs[0].elbo).min() > 0


def test_two_plane_waves_are_separated_and_located(scene):
    model, mixture, energy = scene
    solution = vbss.fit(model, mixture, max_steps=20)
    assert solution.status in (vbss.Status.converged, vbss.Status.max_steps)
    assert sorted(np.asarray(solution.posterior["direction"].probs).argmax(-1)) == list(TRUE_DIRECTIONS)
    assert _accuracy(solution.posterior, energy) > 0.9


def test_model_is_reusable_on_the_next_recording(scene, array):
    model, mixture, _ = scene
    first = vbss.fit(model, mixture, max_steps=3)
    for before, after in zip(jax.tree.leaves(model), jax.tree.leaves(first.model), strict=True):
        np.testing.assert_array_equal(before, after)
    other, _ = _plane_waves(array, 1, frames=45)  # another length, too
    again = vbss.fit(first.model, other, max_steps=20)
    assert sorted(np.asarray(again.posterior["direction"].probs).argmax(-1)) == list(TRUE_DIRECTIONS)


def test_result_does_not_depend_on_the_level(scene):
    model, mixture, _ = scene
    masks = [vbss.fit(model, mixture * level, max_steps=4).posterior["source"].probs for level in (1.0, 1e-4, 1e4)]
    np.testing.assert_allclose(masks[1], masks[0], atol=1e-4)
    np.testing.assert_allclose(masks[2], masks[0], atol=1e-6)


def test_scaling_single_bins_shifts_the_bound_by_a_constant(scene):
    model, mixture, _ = scene
    scale = jnp.exp(jr.normal(jr.key(5), (*mixture.shape[:2], 1)))
    start = model.start(jr.key(0), mixture)
    runs = [
        vbss.fit(model, x, vbss.EM(tolerance=0.0), start={**start, "power": start["power"] * level}, max_steps=4)
        for x, level in ((mixture, 1.0), (mixture * scale.astype(complex), jnp.swapaxes(scale, 1, 2) ** 2))
    ]
    np.testing.assert_allclose(np.diff(runs[0].elbo), np.diff(runs[1].elbo), rtol=1e-6)
    np.testing.assert_allclose(runs[0].posterior["source"].probs, runs[1].posterior["source"].probs, atol=1e-8)


@pytest.mark.parametrize(
    ("noise", "updates"),
    [(0.0, "auto"), (0.03, "auto"), (0.0, "derived")],
    ids=["noise-free", "30 dB", "noise-free derived"],
)
def test_float32_is_finite_with_silence_and_rank_one_bins(array, noise, updates):
    steering = array
    mixture, energy = _plane_waves(steering, 2, noise=noise)  # f = 0 has rank one
    mixture = mixture.at[:, :5].set(0)  # digital silence
    model = LDACGMM.init(steering.astype(jnp.complex64), 2)
    solution = vbss.fit(model, mixture.astype(jnp.complex64), vbss.EM(tolerance=0.0, updates=updates), max_steps=30)
    assert solution.status is not vbss.Status.nonfinite
    assert solution.elbo.dtype == np.float32 and np.isfinite(solution.elbo).all()
    for leaf in jax.tree.leaves(solution.posterior):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
    assert _accuracy(solution.posterior, energy) > 0.7
    if noise:
        assert solution.status is vbss.Status.max_steps  # monotone within rounding
        double = vbss.fit(LDACGMM.init(steering, 2), mixture, max_steps=30)
        np.testing.assert_allclose(solution.elbo[-1], double.elbo[-1], rtol=1e-4)


def test_starts_agree_on_an_easy_scene(scene):
    model, mixture, energy = scene
    masks = jax.nn.one_hot(energy.argmax(-1), 2) * 0.8 + 0.1
    starts = {"peaks": model.start(jr.key(0), mixture), "masks": given_masks(model, mixture, masks)}
    for name, start in starts.items():
        solution = vbss.fit(model, mixture, start=start, max_steps=10)
        found = np.asarray(solution.posterior["direction"].probs).argmax(-1)
        assert sorted(found) == list(TRUE_DIRECTIONS), name
        assert _accuracy(solution.posterior, energy) > 0.9, name
    direction = np.asarray(starts["masks"]["direction"]).argmax(-1)
    assert tuple(direction) == TRUE_DIRECTIONS  # class k of the masks stays class k


def test_given_masks_do_not_depend_on_the_level(scene):
    model, mixture, energy = scene
    masks = jax.nn.one_hot(energy.argmax(-1), 2) * 0.6 + 0.2
    quiet, loud = (given_masks(model, mixture * level, masks) for level in (1e-4, 1.0))
    np.testing.assert_allclose(quiet["direction"], loud["direction"], atol=1e-9)


def test_given_masks_leave_missing_bins_out(scene):
    model, mixture, energy = scene
    masks = jax.nn.one_hot(energy.argmax(-1), 2) * 0.6 + 0.2
    is_observed = jnp.ones(mixture.shape[:2], bool).at[:, 40:].set(False)
    broken = mixture.at[:, 40:].set(1e3)
    np.testing.assert_allclose(
        given_masks(model, broken, masks, is_observed)["direction"],
        given_masks(model, mixture[:, :40], masks[:, :40])["direction"],
        atol=1e-9,
    )


def test_direction_groups_cover_the_circle_evenly(array, scene):
    steering = array
    _, mixture, _ = scene
    start = direction_groups(LDACGMM.init(steering, 6), mixture)
    np.testing.assert_allclose(start["direction"].sum(0), np.full(NUM_DIRECTIONS, 6 / NUM_DIRECTIONS))
    np.testing.assert_array_equal((start["direction"] > 0).sum(1), np.full(6, 4))
    np.testing.assert_allclose(start["source"].sum(-1), np.ones(mixture.shape[:2]))


def test_program_samples_and_predicts(scene):
    model, mixture, _ = scene
    with relaxed_promotion():
        prior = Predictive(handlers.uncondition(model), num_samples=2)(jr.key(0), mixture)
    assert prior["mixture"].shape == (2, *mixture.shape) and prior["mixture"].dtype == jnp.complex128
    assert prior["source"].shape == (2, *mixture.shape[:2]) and prior["direction"].shape == (2, 2)
    solution = vbss.fit(model, mixture, max_steps=5)
    posterior = solution.posterior
    points = {name: jnp.broadcast_to(value, (300, *value.shape)) for name, value in posterior.points.items()}
    covariance = posterior["spatial_covariance"].v
    sites = {
        "source": posterior["source"].sample(jr.key(1), (300,)),
        "direction": posterior["direction"].sample(jr.key(2), (300,)),
        "spatial_covariance": jnp.broadcast_to(covariance, (300, *covariance.shape)),
    }
    with relaxed_promotion():
        drawn = Predictive(handlers.uncondition(model), posterior_samples={**points, **sites})(jr.key(3), mixture)
    power = (jnp.abs(drawn["mixture"]) ** 2).sum(-1).mean(0)
    z, w = posterior["source"].probs, posterior["direction"].probs
    trace = jnp.einsum("fdmm->fd", covariance).real
    expected = jnp.einsum("ftk,fkt,kd,fd->ft", z, posterior["power"], w, trace)
    ratio = power.sum(-1) / expected.sum(-1)
    np.testing.assert_allclose(ratio, np.ones_like(ratio), atol=0.25)


def test_bad_input_is_refused_by_name(scene, array):
    model, mixture, _ = scene
    steering = array
    for data, message in (
        (mixture[:3], "frequencies"),
        (mixture[..., :3], "microphones"),
        (mixture.real.astype(float), "complex"),
        (mixture * jnp.nan, "nan"),
        (mixture * 0, "silent"),
        ((mixture, jnp.zeros(mixture.shape[:2], bool)), "silent"),
        ((mixture, jnp.ones(mixture.shape[:1], bool)), "is_observed must be boolean of shape"),
        ((mixture, jnp.ones(mixture.shape[:2])), "is_observed must be boolean"),
    ):
        with pytest.raises(ValueError, match=message):
            vbss.fit(model, data)
    with pytest.raises(ValueError, match="num_sources"):
        LDACGMM.init(steering, NUM_DIRECTIONS + 1)
    with pytest.raises(ValueError, match="microphones"):
        LDACGMM.init(steering[..., :1], 1)
    with pytest.raises(ValueError, match="degrees_of_freedom"):
        LDACGMM.init(steering, 2, degrees_of_freedom=4.0)
