"""MESSL: derivation, exactness of the fused iteration, the start, bands, signs, missing bins."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import pytest
from numpyro.contrib.funsor import config_enumerate, enum, log_density
from scipy import stats

import vbss
from vbss.context import relaxed_promotion
from vbss.densities import WrappedResidual
from vbss.errors import InputError
from vbss.models import MESSL
from vbss.models.messl_closed_forms import em_step, masks, masks_and_bound
from vbss.models.messl_start import growing_bands, head_levels, points_at, source_delays, start

FREQUENCIES = np.array([300.0, 900.0, 1500.0, 2100.0])
BANDS = {"untied": [0, 1, 2, 3], "one": [0, 0, 0, 0], "grouped": [0, 0, 2, 2]}


def _model(bands="untied", garbage=False, prior=False, num_sources=2):
    delays = np.linspace(-6e-4, 6e-4, 4)
    model = MESSL.init(FREQUENCIES, num_sources, has_garbage=garbage, delays=delays, pseudo_count=0.02)
    if prior:
        model = model.with_level_prior(jnp.array([-4e-4, 3e-4]), 50)
    slots = jnp.asarray(BANDS[bands], jnp.int32)
    return model.replace(bands=slots, level_bands=jnp.arange(4, dtype=jnp.int32) if prior else slots)


def _data(seed, num_frames=6, is_missing=False):
    rng = np.random.default_rng(seed)
    shape = (len(FREQUENCIES), num_frames)
    phase, level = jnp.asarray(rng.uniform(-np.pi, np.pi, shape)), jnp.asarray(rng.normal(0, 6, shape))
    return (phase, level, jnp.asarray(rng.random(shape) < 0.7)) if is_missing else (phase, level)


def _points(model, seed):
    """Anywhere, the frequencies of a band alike."""
    keys = jr.split(jr.key(seed), 5)
    return {
        "log_weights": jax.nn.log_softmax(jr.normal(keys[0], (np.prod(model.shape[1:]),))),
        "phase_loc": 0.3 * jr.normal(keys[1], model.shape),
        "phase_variance": jnp.exp(0.3 * jr.normal(keys[2], model.shape)),
        "level_loc": 3 * jr.normal(keys[3], model.shape[:2]),
        "level_variance": 30 * jnp.exp(0.3 * jr.normal(keys[4], model.shape[:2])),
    }


CASES = [
    ("untied", False, False, False),
    ("one", True, False, True),
    ("grouped", True, True, True),
]


@pytest.mark.parametrize(("bands", "garbage", "prior", "is_missing"), CASES)
def test_derivation_holds(bands, garbage, prior, is_missing):
    model = _model(bands, garbage, prior)
    data = _data(1, is_missing=is_missing)
    report = vbss.check_derivation(
        model, data, key=jr.key(2), start=_points(model, 3), num_states=2, contract=bands == "grouped"
    )
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(model.schedule)
    assert report.elbo_difference is not None and report.elbo_difference < 1e-12


@pytest.mark.parametrize(("bands", "garbage", "prior", "is_missing"), CASES)
def test_fused_iteration_is_the_engines(bands, garbage, prior, is_missing):
    model, data = _model(bands, garbage, prior), _data(4, is_missing=is_missing)
    points = _points(model, 5)
    after, bound = jax.jit(em_step)(model, points, data)
    algorithm = vbss.EM(tolerance=0.0, updates="derived")
    state = algorithm.begin(model, data, points, jr.key(0))
    observations = algorithm.constants(model, state, data)

    @eqx.filter_jit
    def engine(state):
        _, informed = algorithm.update(model, state, data, "label", observations)
        return (
            informed,
            algorithm.elbo(model, informed, data, observations),
            algorithm.sweep(model, state, data, observations)[1],
        )

    informed, informed_bound, swept = engine(state)
    for name in model.schedule[1:]:
        np.testing.assert_allclose(after[name], swept.points[name], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(bound, informed_bound, rtol=1e-12)
    by_class = informed["label"].probs.reshape(*data[0].shape, *model.shape[1:]).sum(-1)
    found, same_bound = jax.jit(masks_and_bound)(model, points, data)
    np.testing.assert_allclose(found, by_class, atol=1e-12)
    np.testing.assert_array_equal(jax.jit(masks)(model, points, data), found)
    np.testing.assert_allclose(same_bound, bound, rtol=1e-12)
    if is_missing:
        prior_masks = np.exp(points["log_weights"]).reshape(model.shape[1:]).sum(-1)
        missing = np.asarray(found)[~np.asarray(data[2])]
        np.testing.assert_allclose(missing, np.broadcast_to(prior_masks, missing.shape), rtol=1e-12)


def test_bound_is_numpyros_log_evidence():
    model, data = _model("grouped", garbage=True, prior=True), _data(6, is_missing=True)
    points = _points(model, 7)

    @jax.jit
    def evidence(points):
        program = enum(config_enumerate(model), first_available_dim=-3)
        return log_density(program, data, {}, points)[0]

    with relaxed_promotion(), numpyro.validation_enabled(False):
        expected = evidence(points)
    np.testing.assert_allclose(jax.jit(masks_and_bound)(model, points, data)[1], expected, rtol=1e-12)


def test_values_of_missing_bins_do_not_count():
    model, (phase, level, is_observed) = _model(garbage=True), _data(8, is_missing=True)
    points = _points(model, 9)
    step = jax.jit(em_step)
    expected = step(model, points, (phase, level, is_observed))
    changed = step(model, points, (phase, jnp.where(is_observed, level, jnp.nan), is_observed))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_stretches_of_frequencies_change_nothing():
    rng = np.random.default_rng(0)
    frequencies, num_frames = np.linspace(100, 8000, 37), 1500  # several stretches, the last one shorter
    model = MESSL.init(frequencies, 2)
    phase, level = jnp.asarray(rng.uniform(-3, 3, (37, num_frames))), jnp.asarray(rng.normal(0, 5, (37, num_frames)))
    points = start(model, phase)
    found, bound = jax.jit(masks_and_bound)(model, points, (phase, level))
    rows = []
    for number in range(37):
        one = jax.tree.map(lambda a, n=number: a[n : n + 1] if a.shape[:1] == (37,) else a, (model, points))
        one = one[0].replace(bands=jnp.zeros(1, jnp.int32), level_bands=jnp.zeros(1, jnp.int32)), one[1]
        rows.append(_alone(*one, (phase[number : number + 1], level[number : number + 1])))
    np.testing.assert_allclose(found, np.concatenate([row[0] for row in rows]), atol=1e-12)
    np.testing.assert_allclose(bound, sum(row[1] for row in rows), rtol=1e-12)


_alone = jax.jit(masks_and_bound)


@pytest.mark.parametrize("num_frequencies", [1, 2, 37, 300, 511])
@pytest.mark.parametrize("num_steps", [1, 5, 16, 40])
def test_bands_are_nested_from_one_to_all(num_frequencies, num_steps):
    bands = growing_bands(num_frequencies, num_steps)
    assert bands.shape == (num_steps, num_frequencies)
    np.testing.assert_array_equal(np.take_along_axis(bands, bands, 1), bands)
    np.testing.assert_array_equal(np.take_along_axis(bands[:-1], bands[1:], 1), bands[:-1])
    assert (bands[0] == 0).all()
    if num_steps > 1:
        np.testing.assert_array_equal(bands[-1], np.arange(num_frequencies))


def test_bands_double_as_in_the_source():
    counts = [len(np.unique(bands)) for bands in growing_bands(511, 16)]
    assert counts == [1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 511, 511, 511, 511]


def test_head_is_louder_on_the_side_whose_ear_leads():
    omega = 2 * np.pi * jnp.array([1000.0, 2000.0, 4000.0])
    levels = np.asarray(head_levels(omega, jnp.array([-5e-4, 0.0, 5e-4])))
    assert (levels[:, 2] > 3).all() and (levels[:, 0] < -3).all()
    np.testing.assert_allclose(levels[:, 1], 0.06945 * np.ones(3))
    slope = jax.grad(lambda u: head_levels(2 * np.pi * jnp.array([1000.0]), u[None])[0, 0])(jnp.array(0.0))
    assert 12e3 < float(slope) < 16e3  # dB per s at 1 kHz
    model = MESSL.init(np.array([1000.0, 2000.0]), 2, has_garbage=True).with_level_prior(jnp.array([-5e-4, 5e-4]), 200)
    np.testing.assert_allclose(model.level_prior_mean, np.pad(levels[:2, [0, 2]], [(0, 0), (0, 1)]), rtol=1e-12)
    np.testing.assert_array_equal(model.level_prior_count, np.array([[6.0, 6.0, 0.0]] * 2))


def test_start_finds_the_delays():
    rng = np.random.default_rng(3)
    frequencies = np.arange(1, 129) * 62.5
    model = MESSL.init(frequencies, 2, has_garbage=True)
    true = np.asarray(model.delays)[[8, 20]]
    owner = rng.integers(2, size=(128, 90)) == (rng.random(90) < 0.4)  # one source rules a frame, not alone
    owner = np.where(rng.random((128, 90)) < 0.7, (np.arange(90) % 3 == 0)[None], owner).astype(int)
    phase = 2 * np.pi * frequencies[:, None] * true[owner] + 0.3 * rng.normal(size=owner.shape)
    phase = jnp.asarray(np.angle(np.exp(1j * phase)))
    np.testing.assert_allclose(source_delays(model, phase), true, rtol=1e-12)
    is_observed = jnp.broadcast_to((jnp.arange(90) % 3 == 0)[None], phase.shape)
    found = [source_delays(model, jnp.where(is_observed, phase, other), is_observed) for other in (0.0, 1.0)]
    assert true[1] in found[0]
    np.testing.assert_array_equal(*found)
    points = start(model, phase)
    weights = np.exp(points["log_weights"]).reshape(3, 31)
    np.testing.assert_allclose(weights.sum(-1), np.full(3, 1 / 3))
    np.testing.assert_array_equal(weights[:2].argmax(-1), [8, 20])
    np.testing.assert_allclose(weights[2], weights[2, :1].repeat(31))
    assert points["phase_variance"][0, 2, 0] == 9


def test_close_sources_have_narrow_windows():
    model = MESSL.init(np.array([500.0]), 2)
    width = {}
    for step in (2, 10):
        points = points_at(model, model.delays[jnp.array([10, 10 + step])], jnp.zeros(()).dtype)
        weights = np.exp(points["log_weights"]).reshape(2, 31)[0]
        width[step] = weights[11] / weights[10]
    assert width[2] < 0.1 < width[10]


def test_wrapped_residual_is_a_density_and_draws_from_it():
    shift, loc, variance = jnp.array([[0.5, 3.0]]), jnp.array([[0.2, -0.4]]), jnp.array([[0.04, 0.09]])
    gate = jnp.eye(2)[jnp.array([0, 1, 1])][None]
    site = vbss.Gated("ft", {"ftj": gate}, WrappedResidual(("fj", shift), ("fj", loc), ("fj", variance)))
    value = jnp.array([[0.7, -3.5, 2.6]])
    residual = np.array([0.2, -3.5 - 3 + 2 * np.pi, -0.4])
    expected = stats.norm.logpdf(residual, [0.2, -0.4, -0.4], [0.2, 0.3, 0.3])
    np.testing.assert_allclose(site.log_prob(value)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(site.total(site.statistics(value)), expected.sum(), rtol=1e-12)
    np.testing.assert_allclose(site.log_prob(value + 4 * np.pi), site.log_prob(value), rtol=1e-10)
    draws = np.asarray(site.sample(jr.key(0), (4000,)))[:, 0]
    assert draws.shape == (4000, 3) and np.abs(draws).max() <= np.pi
    mean = np.exp(1j * draws).mean(0)
    np.testing.assert_allclose(np.angle(mean), [0.7, 2.6, 2.6], atol=0.03)
    np.testing.assert_allclose(np.abs(mean), np.exp(-np.array([0.04, 0.09, 0.09]) / 2), atol=0.01)
    grid = jnp.linspace(-np.pi, np.pi, 20001)
    tall = vbss.Gated("ft", {"ftj": jnp.broadcast_to(gate[:, 1:2], (1, 20001, 2))}, site.density)
    np.testing.assert_allclose(np.trapezoid(np.exp(tall.log_prob(grid[None])[0]), grid), 1.0, atol=1e-6)


def test_bad_input_is_refused_by_name():
    model, (phase, level) = _model(), _data(0)
    for data, message in (
        ((phase[1:], level[1:]), "phase_difference"),
        ((phase, level[:, 1:]), "level_difference"),
        ((phase, level.astype(jnp.float32)), "level_difference"),
        ((phase, level, jnp.ones(phase.shape)), "is_observed"),
    ):
        with pytest.raises(InputError, match=message):
            vbss.fit(model, data)
    with pytest.raises(InputError, match="^bands"):
        vbss.fit(model.replace(bands=jnp.array([0, 1, 2, 4])), (phase, level))
    for arguments, message in (
        ({"frequencies": np.array([0.0, 100.0])}, "frequencies"),
        ({"num_sources": 0}, "num_sources"),
        ({"delays": np.array([1.0, 0.0])}, "delays"),
        ({"pseudo_count": 0.0}, "pseudo_count"),
    ):
        with pytest.raises(InputError, match=message):
            MESSL.init(**{"frequencies": np.array([100.0, 200.0]), "num_sources": 2, **arguments})
    with pytest.raises(InputError, match="num_steps"):
        growing_bands(4, 0)
