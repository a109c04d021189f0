"""The local Gaussian models: derivation, monotone and stationary updates, images, float32, and their programs."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import Predictive

import vbss
from vbss.context import relaxed_promotion
from vbss.demixing import complex_rows
from vbss.distributions import ComplexMultivariateNormal
from vbss.hermitian import pack, unpack
from vbss.models import FastMNMF, LocalGaussianNMF, by_frequency
from vbss.models.fast_mnmf_start import joint_diagonalization
from vbss.models.local_gaussian_nmf_layout import loaded, variances

both = pytest.mark.parametrize("kind", [LocalGaussianNMF, FastMNMF])


def _noise(key, *shape):
    return jr.normal(key, shape, complex)


@cache
def _scene(frequencies=12, frames=60, size=3):
    """Two sources of low-rank spectra and nearly rank-one covariance with faint noise; and the images of each."""
    rng = np.random.default_rng(0)
    spectra = rng.gamma(0.3, size=(frequencies, 2, 2))
    activations = rng.gamma(0.3, size=(2, 2, frames))
    variance = np.einsum("fkb,kbn->kfn", spectra, activations)
    steering = np.exp(2j * np.pi * rng.random((2, frequencies, 1, size)))
    steering = steering + 0.2 * np.exp(2j * np.pi * rng.random((2, frequencies, frames, size)))
    signals = np.sqrt(variance / 2) * (rng.normal(size=variance.shape) + 1j * rng.normal(size=variance.shape))
    images = signals[..., None] * steering
    mixture = images.sum(0) + 0.01 * np.asarray(_noise(jr.key(0), frequencies, frames, size))
    share = np.abs(images[..., 0]) ** 2
    masks = 0.8 * share / share.sum(0) + 0.1
    return jnp.asarray(mixture), jnp.asarray(np.moveaxis(masks, 0, -1)), images


def _random(key, frequencies=2, frames=9, size=2):
    mixture = _noise(key, frequencies, frames, size)
    return mixture * jnp.exp(jr.normal(key, (frequencies, frames, 1))).astype(mixture.dtype)


def _ratio(images, found):
    """Signal to distortion in dB, at the first microphone."""
    truth = images[..., 0]
    return 10 * np.log10((np.abs(truth) ** 2).sum((1, 2)) / (np.abs(truth - np.asarray(found)) ** 2).sum((1, 2)))


def _covariances(model, points):
    """R of all classes, (F, K, M, M), with its loading where it has one."""
    if not isinstance(model, FastMNMF):
        return unpack(loaded(points["spatial_covariance"], model.loading))
    mixing = jnp.linalg.inv(complex_rows(points["demixing"]))
    return jnp.einsum("fim,fkm,fjm->fkij", mixing, points["gains"].astype(mixing.dtype), mixing.conj())


def _first_channel(mixture):
    return jnp.zeros((mixture.shape[0], mixture.shape[2]), mixture.dtype).at[:, 0].set(1)


@pytest.mark.parametrize(("kind", "has_noise"), [(LocalGaussianNMF, True), (LocalGaussianNMF, False), (FastMNMF, True)])
def test_derivation_holds(kind, has_noise):
    mixture = _random(jr.key(0)).at[1, 2].set(0)
    is_observed = jr.bernoulli(jr.key(1), 0.8, mixture.shape[:2]).at[:, 1].set(False)
    model = kind.init(2, 2, has_noise=has_noise, loading=1e-2)
    report = vbss.check_derivation(model, (mixture, is_observed), num_states=3, contract=False)
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(model.schedule)
    assert report.elbo_difference is not None and report.elbo_difference < 1e-12


@both
def test_contract_holds(kind):
    report = vbss.check_derivation(kind.init(2, 1, loading=1e-2), _random(jr.key(2)), num_states=1)
    assert report.passed, f"\n{report}"


@both
def test_updates_never_lower_the_density_and_end_without_slope(kind):
    model = kind.init(2, 2, loading=1e-2)
    algorithm = vbss.EM()

    def run(key):
        mixture = _random(key, frames=12)
        posterior = algorithm.begin(model, (mixture,), given_masks_of(key, mixture), key)
        observations = algorithm.constants(model, posterior, (mixture,))

        def step(points, _):
            _, later, bound = algorithm.step(model, with_points(posterior, points), (mixture,), observations)
            return later.points, bound

        points, bounds = jax.lax.scan(step, posterior.points, length=400)

        def density(spectra):
            at_end = with_points(posterior, {**points, "spectra": spectra})
            return algorithm.elbo(model, at_end, (mixture,), observations)

        return bounds, jnp.abs(jax.grad(density)(points["spectra"]) * points["spectra"]).max()

    def given_masks_of(key, mixture):
        masks = jax.nn.softmax(jr.normal(key, (*mixture.shape[:2], 2)), -1)
        return model.given_masks(mixture, masks, key=key)

    def with_points(posterior, points):
        return eqx.tree_at(lambda p: p.points, posterior, points)

    bounds, slopes = jax.jit(jax.vmap(run))(jr.split(jr.key(0), 50))
    assert np.diff(bounds).min() > -1e-9
    assert (bounds[:, -1] - bounds[:, 0]).min() > 1
    assert np.median(slopes) < 1e-2 and np.max(slopes) < 1


@both
def test_bound_is_the_density_of_normal_sums(kind):
    mixture, masks, _ = _scene()
    model = kind.init(2, 2, loading=1e-2)
    start = model.given_masks(mixture, masks, key=jr.key(0))
    solution = vbss.fit(model, mixture, start=start, max_steps=0)
    # Of the sources two components each, then one of the noise.
    spectra, activations = start["spectra"], start["activations"]
    parts = (slice(0, 2), slice(2, 4), slice(4, 5))
    variance = jnp.stack([spectra[:, part] @ activations[part] for part in parts])
    total = jnp.einsum("kfn,fkij->fnij", variance.astype(complex), _covariances(model, start))
    with relaxed_promotion():
        expected = ComplexMultivariateNormal(covariance_matrix=total).log_prob(mixture)
    if kind is FastMNMF:  # whose bins, not sources, carry the loading: the mean of log p, given white noise
        energy = jnp.einsum("fni,fni->fn", mixture.conj(), jnp.linalg.solve(total, mixture[..., None])[..., 0]).real
        white = (jnp.abs(mixture) ** 2).mean(-1) * jnp.trace(jnp.linalg.inv(total), axis1=2, axis2=3).real
        expected = expected + energy - (energy + model.loading * white) / (1 + model.loading)
    np.testing.assert_allclose(solution.elbo[-1], expected.sum(), rtol=1e-12)


@both
def test_images_are_the_posterior_means(kind):
    mixture, masks, _ = _scene()
    model = kind.init(2, 3, has_noise=False)
    solution = vbss.fit(model, mixture, start=model.given_masks(mixture, masks, key=jr.key(0)), max_steps=3)
    points = solution.posterior.points
    variance = variances(model, points["spectra"], points["activations"])
    own = jnp.einsum("kfn,fkij->kfnij", variance.astype(complex), _covariances(model, points))
    expected = jnp.einsum("kfnij,fnj->kfni", own, jnp.linalg.solve(own.sum(0), mixture[..., None])[..., 0])
    images = model.images(solution.posterior, mixture)
    np.testing.assert_allclose(images, expected, atol=1e-9)
    np.testing.assert_allclose(images.sum(0), mixture, atol=1e-9)
    covariances = own - own @ jnp.linalg.solve(own.sum(0)[None], own)
    channel = _noise(jr.key(5), *_first_channel(mixture).shape)
    variances_of_channel = jnp.einsum("fi,kfnij,fj->kfn", channel, covariances, channel.conj()).real
    np.testing.assert_allclose(
        model.image_variances(solution.posterior, mixture, channel), variances_of_channel, rtol=1e-6, atol=1e-12
    )
    first = model.images(solution.posterior, mixture, _first_channel(mixture))
    np.testing.assert_allclose(first, images[..., 0], atol=1e-12)


@both
def test_variances_are_the_errors_of_sources_drawn_from_the_model(kind):
    model = kind.init(2, 2, loading=1e-2)
    start = model.given_masks(*_scene()[:2], key=jr.key(0))
    variance = variances(model, start["spectra"], start["activations"])
    root = jnp.linalg.cholesky(_covariances(model, start))
    noise = _noise(jr.key(1), *variance.shape, 3)
    drawn = jnp.einsum("fkij,kfnj->kfni", root, noise) * jnp.sqrt(variance)[..., None].astype(complex)
    mixture = drawn.sum(0)
    solution = vbss.fit(model, mixture, start=start, max_steps=0)
    channel = _noise(jr.key(2), *_first_channel(mixture).shape)
    truth = jnp.einsum("fi,kfni->kfn", channel, drawn[:2])
    error = jnp.abs(truth - model.images(solution.posterior, mixture, channel)) ** 2
    expected = model.image_variances(solution.posterior, mixture, channel)
    # An error of variance P, in units of it, is a unit exponential.
    ratio = np.asarray(error / expected)
    assert np.all(np.abs(ratio.mean((1, 2)) - 1) < 5 / np.sqrt(ratio[0].size))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(LocalGaussianNMF, jnp.complex64), (LocalGaussianNMF, jnp.complex128), (FastMNMF, jnp.complex64)],
)
def test_sources_are_separated_beyond_what_masks_can(kind, dtype):
    mixture, masks, images = _scene()
    masked = _ratio(images, np.moveaxis(np.asarray(masks), -1, 0) * np.asarray(mixture)[..., 0])
    given, masks = mixture.astype(dtype), masks.astype(jnp.finfo(dtype).dtype)
    model = kind.init(2, 3)
    solution = vbss.fit(
        model, given, vbss.EM(tolerance=0.0), start=model.given_masks(given, masks, key=jr.key(0)), max_steps=40
    )
    assert solution.status is vbss.Status.max_steps
    assert np.diff(solution.elbo).min() > -1e-4 * masks[..., 0].size
    separated = _ratio(images, model.images(solution.posterior, given, _first_channel(given)))
    assert (separated - masked).min() > 1


@both
def test_missing_and_silent_bins_are_integrated_out(kind):
    mixture, masks, _ = _scene()
    model = kind.init(2, 2)
    is_observed = jnp.ones(mixture.shape[:2], bool).at[:, 40:].set(False).at[3, :30].set(False)
    broken = jnp.where(is_observed[..., None], mixture, 1e100 * mixture[::-1])
    start = model.given_masks(mixture, masks, is_observed, key=jr.key(0))
    runs = [vbss.fit(model, (data, is_observed), start=start, max_steps=5) for data in (mixture, broken)]
    np.testing.assert_allclose(runs[0].elbo, runs[1].elbo, rtol=1e-12)
    silent = vbss.fit(model, jnp.where(is_observed[..., None], mixture, 0), start=start, max_steps=5)
    np.testing.assert_allclose(silent.elbo, runs[0].elbo, rtol=1e-12)
    posterior = runs[1].posterior
    images = model.images(posterior, broken, None, is_observed)
    assert bool(jnp.isfinite(images).all()) and float(jnp.abs(images[:, :, 40:]).max()) == 0
    remaining = model.image_variances(posterior, broken, _first_channel(broken), is_observed)
    prior = variances(model, posterior.points["spectra"], posterior.points["activations"])[:2]
    prior = prior * jnp.swapaxes(_covariances(model, posterior.points)[:, :2, 0, 0].real, 0, 1)[..., None]
    np.testing.assert_allclose(remaining[:, :, 40:], prior[:, :, 40:], rtol=1e-9)
    # As if these frames did not exist.
    short = {**start, "activations": start["activations"][:, :40]}
    alone = vbss.fit(model, (mixture[:, :40], is_observed[:, :40]), start=short, max_steps=5)
    np.testing.assert_allclose(alone.elbo, runs[0].elbo, rtol=1e-12)
    of_broken = model.given_masks(broken, masks, is_observed, key=jr.key(0))
    np.testing.assert_allclose(_covariances(model, of_broken), _covariances(model, start), atol=1e-12)


@pytest.mark.parametrize(("kind", "has_noise"), [(LocalGaussianNMF, True), (LocalGaussianNMF, False), (FastMNMF, True)])
def test_float32_is_finite_with_silence_and_rank_one_bins(kind, has_noise):
    mixture, masks, _ = _scene()
    mixture = mixture.at[0].set(mixture[0, :, :1])  # the microphones hear the same
    mixture = mixture.at[:, :4].set(0).at[2].set(0)
    mixture = mixture.at[:, 50:].multiply(1e-6).astype(jnp.complex64)
    masks = masks.at[4, :, 0].set(0).at[4, :, 1].set(1).astype(jnp.float32)  # a source without a bin
    model = kind.init(2, 3, has_noise=has_noise)
    start = model.given_masks(mixture, masks, key=jr.key(0))
    solution = vbss.fit(model, mixture, vbss.EM(tolerance=0.0), start=start, max_steps=150)
    assert solution.elbo.dtype == np.float32 and np.isfinite(solution.elbo).all()
    assert np.diff(solution.elbo).min() > -1e-3 * masks[..., 0].size
    images = model.images(solution.posterior, mixture)
    for leaf in (*jax.tree.leaves(solution.posterior.points), images.real):
        assert leaf.dtype == jnp.float32 and bool(jnp.isfinite(leaf).all())


@both
def test_a_few_frequencies_at_a_time_give_what_all_together_do(kind, monkeypatch):
    mixture, masks, _ = _scene()
    model = kind.init(2, 2)
    start = model.given_masks(mixture, masks, key=jr.key(0))
    expected = vbss.fit(model, mixture, start=start, max_steps=3)
    monkeypatch.setattr(by_frequency, "_CPU_BINS", 5 * mixture.shape[1])  # of twelve, so that three are made up
    jax.clear_caches()
    found = vbss.fit(model, mixture, start=start, max_steps=3)
    np.testing.assert_allclose(found.elbo, expected.elbo, rtol=1e-12)
    images = (model.images(solution.posterior, mixture) for solution in (found, expected))
    np.testing.assert_allclose(*images, atol=1e-9)


def test_sources_of_rank_one_stay_so():
    mixture, masks, _ = _scene()
    model = FastMNMF.init(2, 2)
    start = model.given_masks(mixture, masks, key=jr.key(0))
    rank_one = jnp.broadcast_to(jnp.eye(3)[None], start["gains"].shape).at[:, 2].set(1)  # and a noise of full rank
    solution = vbss.fit(model, mixture, vbss.EM(tolerance=0.0), start={**start, "gains": rank_one}, max_steps=20)
    np.testing.assert_array_equal(np.asarray(solution.posterior.points["gains"] == 0), np.asarray(rank_one == 0))
    assert np.diff(solution.elbo).min() > 0


@pytest.mark.parametrize("num_classes", [1, 2])
def test_two_covariances_are_made_diagonal_together(num_classes):
    root = _noise(jr.key(0), 5, num_classes, 3, 3)
    covariances = root @ root.conj().mT + 0.1 * jnp.eye(3, dtype=complex)[None, None]
    demixing = complex_rows(joint_diagonalization(pack(covariances), jnp.ones((5, num_classes)), num_sweeps=200))
    found = np.asarray(demixing[:, None] @ covariances @ demixing.conj().mT[:, None])
    diagonal = np.einsum("fkmm->fkm", found).real
    scale = np.sqrt(diagonal[..., :, None] * diagonal[..., None, :])
    np.testing.assert_allclose(found / scale, np.broadcast_to(np.eye(3), found.shape), atol=1e-6)


def test_level_shifts_the_bound_by_a_constant():
    mixture, masks, _ = _scene()
    model = LocalGaussianNMF.init(2, 2)
    start = model.given_masks(mixture, masks, key=jr.key(0))
    louder = {**start, "spectra": start["spectra"] * 1e-6}
    runs = [vbss.fit(model, x, start=s, max_steps=5) for x, s in ((mixture, start), (mixture * 1e-3, louder))]
    np.testing.assert_allclose(np.diff(runs[0].elbo), np.diff(runs[1].elbo), rtol=1e-9)


def test_a_random_start_is_better_than_nothing():
    mixture, _, _ = _scene()
    solution = vbss.fit(LocalGaussianNMF.init(2, 2), mixture, max_steps=5)
    assert np.diff(solution.elbo).min() > 0


@both
def test_program_samples_what_it_says(kind):
    mixture, masks, _ = _scene()
    model = kind.init(2, 2)
    points = model.given_masks(mixture, masks, key=jr.key(0))
    repeated = {name: jnp.broadcast_to(value, (400, *value.shape)) for name, value in points.items()}
    with relaxed_promotion():
        drawn = Predictive(handlers.uncondition(model), posterior_samples=repeated)(jr.key(1), mixture)["mixture"]
    variance = variances(model, points["spectra"], points["activations"])
    trace = jnp.einsum("fkmm->kf", _covariances(model, points)).real
    expected = (variance * trace[..., None]).sum((0, 2))
    ratio = (jnp.abs(drawn) ** 2).sum((2, 3)).mean(0) / expected
    np.testing.assert_allclose(ratio, np.ones_like(ratio), atol=0.1)


def test_bad_input_is_refused_by_name():
    mixture, _, _ = _scene()
    model = LocalGaussianNMF.init(2)
    for data, message in (
        (mixture[0], "frames, microphones"),
        (mixture[..., :1], "at least 2 microphones"),
        (mixture.real, "complex"),
        (mixture * jnp.nan, "nan"),
        (mixture * 0, "silent"),
        ((mixture, jnp.zeros(mixture.shape[:2], bool)), "silent"),
        ((mixture, jnp.ones(mixture.shape[:2])), "is_observed must be boolean"),
    ):
        with pytest.raises(ValueError, match=message):
            vbss.fit(model, data)
    with pytest.raises(ValueError, match="num_sources"):
        LocalGaussianNMF.init(0)
    with pytest.raises(ValueError, match="num_components"):
        LocalGaussianNMF.init(2, 0)
    with pytest.raises(ValueError, match="loading"):
        LocalGaussianNMF.init(2, loading=0.0)
