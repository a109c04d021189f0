"""VESSL: derivation at every level of tying, exactness for one source, release of ties, the start's search."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import vbss
from vbss.errors import InputError
from vbss.models import PPAM, VESSL
from vbss.models.affine_pieces import position_posterior
from vbss.models.vessl_start import best_centers

FREQUENCIES, FRAMES = 4, 5
IS_CUE = jnp.array([[True] * FREQUENCIES, [True, True, False, False]])
LEVELS = [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]]


@pytest.fixture(scope="module")
def ppam():
    keys = jr.split(jr.key(0), 3)
    positions = jr.uniform(keys[0], (60, 2), minval=-1.0, maxval=1.0)
    cues = 3 * jnp.sin(2 * positions @ jr.normal(keys[1], (2, 6))) + 0.1 * jr.normal(keys[2], (60, 6))
    return vbss.fit(PPAM.init(positions, cues, 5), (positions, cues), max_steps=20).model


def model_of(ppam, num_sources=2, labels=LEVELS[-1], **options):
    options = {"noise_variance": jnp.array([0.1, 0.2]), "weight_count": 2.0} | options
    model = VESSL.init(ppam, IS_CUE, num_sources, **options)
    return model if labels is None else model.replace(labels=jnp.array(labels))


def recording(seed, frames=FRAMES):
    keys = jr.split(jr.key(seed), 2)
    is_observed = jr.bernoulli(keys[0], 0.7, (FREQUENCIES, frames)).at[:, 2].set(False).at[0, 0].set(True)
    return 2 * jr.normal(keys[1], (2, FREQUENCIES, frames)), is_observed


@pytest.mark.parametrize("labels", [*LEVELS, None])
@pytest.mark.parametrize("outlier_probability", [None, 0.3])
def test_derivation_holds(ppam, labels, outlier_probability):
    model = model_of(ppam, labels=labels, outlier_probability=outlier_probability)
    is_whole = labels == LEVELS[1] and outlier_probability is not None
    report = vbss.check_derivation(model, recording(1), num_states=2, contract=is_whole)
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(VESSL.schedule)


def test_one_source_is_the_inverse_of_the_map_combined_over_frames(ppam):
    model = model_of(ppam, 1)
    cues, _ = recording(2)
    data = (cues, jnp.ones(cues.shape[1:], bool))
    solution = vbss.fit(model, data, vbss.EM(frozen=["noise_precision"]), max_steps=3)
    precision = solution.posterior.points["noise_precision"].reshape(-1)[model.places]
    centred = (cues - model.cue_means[..., None]).reshape(-1, FRAMES)[model.places]
    counts = jnp.full((1, len(precision)), float(FRAMES))
    expected = position_posterior(ppam.pieces, counts, centred.sum(-1)[None], precision)
    found = model.positions(solution.posterior)
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-10)
    np.testing.assert_allclose(found.precisions, expected.precisions, rtol=1e-10)
    np.testing.assert_allclose(found.logits, jax.nn.log_softmax(expected.logits), atol=1e-9)
    # One source leaves nothing to approximate: the bound is the evidence, and the frozen noise's prior.
    each = (FRAMES * jnp.log(precision / (2 * jnp.pi)) - precision * (centred**2).sum(-1)).sum() / 2
    all_precisions = solution.posterior.points["noise_precision"]
    prior = (jnp.log(all_precisions) - all_precisions * model.noise_variance).sum() / 2
    evidence = jax.nn.logsumexp(expected.logits) + each + prior
    np.testing.assert_allclose(solution.elbo[-1], evidence, rtol=1e-12)


def test_with_one_frame_it_is_the_inverse_of_the_map(ppam):
    model = model_of(ppam, 1)
    cues, _ = recording(3, frames=4)
    cues = cues[..., :1]
    start = {
        "noise_precision": jnp.ones(IS_CUE.shape)
        .reshape(-1)
        .at[model.places]
        .set(ppam.noise_precision)
        .reshape(IS_CUE.shape)
    }
    solution = vbss.fit(
        model, (cues, jnp.ones(cues.shape[1:], bool)), vbss.EM(frozen=["noise_precision"]), start=start, max_steps=2
    )
    inverse = ppam.inverse(cues.reshape(-1, 1)[model.places].T)
    np.testing.assert_allclose(model.positions(solution.posterior).peak, inverse.peak, rtol=1e-8)


def test_a_map_that_is_wrong_by_nothing_has_the_same_positions(ppam):
    model = model_of(ppam, outlier_probability=0.3)
    data = recording(5)
    posterior = vbss.fit(model, data, key=jr.key(0), max_steps=3).posterior
    natural = model.closed_forms()["position"](model, posterior, data, {})
    posterior = posterior.with_factor("position", posterior.factors["position"].with_natural(natural))
    expected, found = model.positions(posterior), model.located(posterior, *data, jnp.zeros(len(model.places)))
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-9)
    np.testing.assert_allclose(jax.nn.log_softmax(found.logits), jax.nn.log_softmax(expected.logits), atol=1e-8)


def test_the_error_of_the_map_is_integrated_out(ppam):
    model = model_of(ppam, 1)
    data = (recording(6)[0], jnp.ones((FREQUENCIES, FRAMES), bool))
    posterior = vbss.fit(model, data, max_steps=3).posterior
    map_variance = jnp.linspace(0.1, 1.0, len(model.places))
    found = model.located(posterior, *data, map_variance).mixture
    # Bayes' rule: all frames have one error in common, which makes their cues' covariance v 1 1' + sigma^2 I.
    precision = np.asarray(posterior.points["noise_precision"]).reshape(-1)[model.places]
    cues = np.asarray(data[0] - model.cue_means[..., None]).reshape(-1, FRAMES)[model.places]
    pieces, points = jax.tree.map(np.asarray, ppam.pieces), np.random.default_rng(0).uniform(-1, 1, (6, 2))
    expected = []
    for point in points:
        of_pieces = pieces.log_weights.copy()
        for k, (center, inverse) in enumerate(zip(pieces.centers, pieces.precisions, strict=True)):
            of_pieces[k] += multivariate_normal.logpdf(point, center, np.linalg.inv(inverse))
            means = pieces.maps[:, k] @ [*(point - center), 1]
            for y, mean, v, tau in zip(cues, means, np.asarray(map_variance), precision, strict=True):
                of_pieces[k] += multivariate_normal.logpdf(y, np.full(FRAMES, mean), v + np.eye(FRAMES) / tau)
        expected.append(logsumexp(of_pieces))
    difference = [float(found.log_prob(jnp.asarray(point)[None])[0]) for point in points] - np.array(expected)
    np.testing.assert_allclose(difference, difference[0], rtol=1e-8)  # the evidence, the same everywhere


@settings(max_examples=6)
@given(st.integers(0, 2**31 - 1))
def test_one_bound_rises_through_all_levels(ppam_float32, seed):
    cues, is_observed = recording(seed)
    data = (cues.astype(jnp.float32), is_observed)
    algorithm = vbss.EM(0.0, frozen=["log_mixing_weights"])  # even: see the model
    solution, bounds = None, []
    for labels in LEVELS:
        variance = jnp.array([0.1, 0.2], jnp.float32)
        model = model_of(ppam_float32, labels=labels, outlier_probability=0.3, noise_variance=variance)
        start = None if solution is None else model.released(solution.posterior, solution.model.labels, is_observed)
        solution = vbss.fit(model, data, algorithm, key=jr.key(seed), start=start, max_steps=8)
        bounds.append(solution.elbo)
    bounds = np.concatenate(bounds)
    assert np.diff(bounds[1:]).min() > -1e-4 * is_observed.size


@pytest.fixture(scope="module")
def ppam_float32(ppam):
    return jax.tree.map(lambda a: a.astype(jnp.float32), ppam)


def test_what_was_not_observed_changes_nothing(ppam):
    model = model_of(ppam)
    cues, is_observed = recording(4)
    other = jnp.where(is_observed[None] & IS_CUE[..., None], cues, 1e6)
    bounds = [vbss.fit(model, (y, is_observed), key=jr.key(0), max_steps=5).elbo for y in (cues, other)]
    np.testing.assert_array_equal(*bounds)


def scene(ppam, pieces, seed, frames=40, noise=0.3):
    """Bins of some pieces' centres in turn, with noise."""
    model = model_of(ppam, len(pieces))
    rng = np.random.default_rng(seed)
    owner = rng.integers(len(pieces), size=(FREQUENCIES, frames))
    centers = np.zeros(IS_CUE.size)[None].repeat(len(pieces), 0)
    centers[:, np.asarray(model.places)] = np.asarray(ppam.pieces.maps[:, np.asarray(pieces), -1]).T
    of_sources = centers.reshape(len(pieces), *IS_CUE.shape) + np.asarray(model.cue_means)[None]
    clean = np.stack([of_sources[owner[f], :, f].T for f in range(FREQUENCIES)], 1)
    return model, jnp.asarray(clean + noise * rng.normal(size=clean.shape)), owner


@pytest.mark.parametrize("pieces", [(3,), (0, 2), (0, 1, 4)])
def test_the_search_finds_the_pieces_that_speak(ppam, pieces):
    model, cues, _ = scene(ppam, pieces, 0)
    is_observed = jnp.ones(cues.shape[1:], bool)
    best = best_centers(model, cues, is_observed, key=jr.key(0), num_candidates=3)
    assert best.shape == (3, len(pieces))
    assert set(np.asarray(best[0]).tolist()) == set(pieces)


def test_other_candidates_are_elsewhere(ppam):
    model, cues, _ = scene(ppam, (0, 2), 0)
    centers = jnp.array([[-1.0, 0.0], [-0.9, 0.0], [0.0, 0.0], [0.1, 0.0], [1.0, 0.0]])
    model = eqx.tree_at(lambda model: model.pieces.centers, model, centers)
    best = best_centers(model, cues, jnp.ones(cues.shape[1:], bool), key=jr.key(0), num_candidates=20)
    pairs = [tuple(pair) for pair in np.asarray(best).tolist()]
    # (0, 2) has the neighbours 1 and 3: of these, no pair comes before those with piece 4; but all ten come.
    assert pairs[0] == (0, 2)
    assert pairs.index((0, 3)) > min(pairs.index((0, 4)), pairs.index((1, 4)))
    assert len(set(pairs)) == len(pairs) == 10


def test_masks_and_positions_of_two_sources(ppam):
    model, cues, owner = scene(ppam, (0, 2), 1)
    data = (cues, jnp.ones(cues.shape[1:], bool).at[0, 0].set(False))
    solution = vbss.fit(model, data, max_steps=30)
    masks = np.asarray(model.masks(solution.posterior, cues))
    np.testing.assert_allclose(masks.sum(-1), 1)
    right = (masks.argmax(-1) == owner).mean()
    assert max(right, 1 - right) > 0.9
    found = np.asarray(model.positions(solution.posterior).peak)
    true = np.asarray(ppam.centers)[[0, 2]]
    error = min(np.abs(found - true).max(), np.abs(found[::-1] - true).max())
    assert error < 0.3
    assert model.positions(solution.posterior).mixture.batch_shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, o: (y[0], o), "cues must be real of shape"),
        (lambda y, o: (y, o[:, :3]), "is_observed must be boolean of shape"),
        (lambda y, o: (y, jnp.zeros_like(o)), "nothing was observed"),
    ],
)
def test_odd_data_are_refused(ppam, change, message):
    with pytest.raises(InputError, match=message):
        vbss.fit(model_of(ppam), change(*recording(5)))


def test_a_map_of_other_cues_is_refused(ppam):
    with pytest.raises(InputError, match="the 6 cues of the map"):
        VESSL.init(ppam, jnp.ones((2, 4), bool), 2, noise_variance=jnp.ones(2))
