"""The piecewise affine map: derivation, both directions of the map against Bayes' rule, missing cues, odd input."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vbss
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.models import PPAM
from vbss.models.affine_pieces import position_log_densities


def problem(seed, num=30, num_cues=4, size=2):
    keys = jr.split(jr.key(seed), 4)
    positions = jr.uniform(keys[0], (num, size), minval=-1.0, maxval=1.0)
    cues = jnp.sin(2 * positions @ jr.normal(keys[1], (size, num_cues))) + 0.1 * jr.normal(keys[2], (num, num_cues))
    is_observed = jr.bernoulli(keys[3], 0.7, cues.shape).at[0].set(False).at[:, 1].set(True)
    return positions, cues, is_observed


@pytest.fixture(scope="module")
def fitted():
    positions, cues, _ = problem(0, num=60)
    return vbss.fit(PPAM.init(positions, cues, 3), (positions, cues), key=jr.key(1)).model


@pytest.mark.parametrize("is_complete", [True, False])
def test_derivation_holds(is_complete):
    positions, cues, is_observed = problem(0)
    data = (positions, cues) if is_complete else (positions, cues, is_observed)
    report = vbss.check_derivation(PPAM.init(*data[:2], 3), data, num_states=2, contract=is_complete)
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(PPAM.schedule)


def test_derivation_holds_without_priors():
    positions, cues, _ = problem(1)
    model = PPAM.init(positions, cues, 2, ridge=0.0, spread=0.0)
    report = vbss.check_derivation(model, (positions, cues), num_states=2, contract=False)
    assert report.passed, f"\n{report}"


@settings(max_examples=8)
@given(st.integers(0, 2**31 - 1))
def test_the_bound_never_falls(seed):
    positions, cues, is_observed = (
        jnp.asarray(a, a.dtype if a.dtype == bool else jnp.float32) for a in problem(seed, num=60)
    )
    model = PPAM.init(positions, cues, 4)
    solution = vbss.fit(model, (positions, cues, is_observed), key=jr.key(seed), max_steps=30)
    assert solution.status in (vbss.Status.converged, vbss.Status.max_steps)
    assert np.diff(solution.elbo).min() > -1e-4 * cues.size


def test_everything_observed_is_the_same_as_no_mask():
    positions, cues, _ = problem(2)
    model = PPAM.init(positions, cues, 3)
    bounds = [
        vbss.fit(model, data, key=jr.key(0), max_steps=4).elbo
        for data in ((positions, cues), (positions, cues, jnp.ones(cues.shape, bool)))
    ]
    np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-12)


def test_values_of_cues_that_were_not_observed_change_nothing(fitted):
    positions, cues, is_observed = problem(3)
    other = jnp.where(is_observed, cues, 1e6)
    for of_cues in (
        lambda y: (
            vbss.fit(
                PPAM.init(positions, cues, 2, is_observed=is_observed), (positions, y, is_observed), max_steps=2
            ).elbo
        ),
        lambda y: fitted.inverse(y, is_observed).logits,
        lambda y: fitted.log_likelihood(positions, y, is_observed),
    ):
        np.testing.assert_array_equal(of_cues(cues), of_cues(other))


def test_inverse_is_bayes_rule_and_integrates_to_one(fitted):
    observed = problem(4)[1][:2]
    steps = np.linspace(-4, 4, 401)
    grid = jnp.asarray(np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2))
    area = (steps[1] - steps[0]) ** 2
    with relaxed_promotion():
        density = jnp.exp(fitted.inverse(observed).mixture.log_prob(grid[:, None])).T
    np.testing.assert_allclose(density.sum(-1) * area, 1, rtol=1e-6)
    for cues, of_cues in zip(observed, density, strict=True):
        joint = jnp.exp(fitted.log_likelihood(grid, jnp.broadcast_to(cues, (len(grid), 4))))
        np.testing.assert_allclose(of_cues, joint / (joint.sum() * area), atol=1e-6 * float(of_cues.max()))


def test_forward_and_position_density_make_the_joint_density(fitted):
    positions, cues, _ = problem(5)
    log_prior = jax.nn.logsumexp(position_log_densities(fitted.pieces, positions), -1)
    with relaxed_promotion():
        joint = fitted.forward(positions).log_prob(cues) + log_prior
    np.testing.assert_allclose(joint, fitted.log_likelihood(positions, cues), rtol=1e-10)


def test_positions_are_found_again(fitted):
    positions, cues, _ = problem(0, num=60)
    error = np.abs(fitted.inverse(cues).peak - positions)
    assert np.median(error) < 0.15


def test_the_peak_is_the_most_probable_position_and_piece(fitted):
    posterior = fitted.inverse(problem(6)[1][:5])
    half = np.linalg.slogdet(np.asarray(posterior.precisions))[1] / 2
    best = (np.asarray(posterior.logits) + half).argmax(-1)
    np.testing.assert_allclose(posterior.peak, np.asarray(posterior.means)[np.arange(5), best])


def test_the_error_at_positions_left_out_is_that_of_maps_fitted_without_them():
    positions, cues, _ = problem(2, num=20)
    model = PPAM.init(positions, cues, 1, ridge=0.1)
    found = vbss.fit(model, (positions, cues), vbss.EM(0.0), max_steps=3).model.left_out_variance(positions, cues)
    regressors = np.concatenate([positions, np.ones((20, 1))], -1)
    centred = np.asarray(cues) - np.asarray(model.cue_means)
    errors = []
    for left_out in range(20):
        rest = np.arange(20) != left_out
        square = regressors[rest].T @ regressors[rest] + 0.1 * np.eye(3)
        coefficients = np.linalg.solve(square, regressors[rest].T @ centred[rest])
        errors.append(centred[left_out] - regressors[left_out] @ coefficients)
    np.testing.assert_allclose(found, np.mean(np.square(errors), 0), rtol=1e-9)


def test_the_error_at_positions_left_out_is_about_that_at_others():
    positions, cues, _ = problem(3, num=300)
    model = vbss.fit(PPAM.init(positions[:150], cues[:150], 30), (positions[:150], cues[:150]), key=jr.key(0)).model
    fitted, left_out = 1 / model.noise_precision, model.left_out_variance(positions[:150], cues[:150])
    actual = ((model.forward(positions[150:]).mean - cues[150:]) ** 2).mean(0)
    assert (fitted < 0.5 * actual).all()
    np.testing.assert_array_less(np.abs(np.log(left_out / actual)), np.log(2))


@pytest.mark.parametrize("num_pieces", [40, 20])
def test_a_map_of_as_many_pieces_as_positions_knows_that_it_knows_little(num_pieces):
    positions, cues, _ = problem(4, num=140)
    fitted = (positions[:40], cues[:40])
    model = vbss.fit(PPAM.init(*fitted, num_pieces), fitted, key=jr.key(0)).model
    actual = ((model.forward(positions[40:]).mean - cues[40:]) ** 2).mean(0)
    assert (model.left_out_variance(*fitted) > actual / 2).all()


def test_a_piece_without_positions_keeps_what_it_has():
    positions, cues, is_observed = problem(7)
    model = PPAM.init(positions, cues, 3)
    for data in ((positions, cues), (positions, cues, is_observed)):
        probs = model.start(jr.key(0), positions, cues)["piece"].at[:, 2].set(0)
        solution = vbss.fit(model, data, start={"piece": probs}, max_steps=3)
        assert solution.status is vbss.Status.max_steps
        assert bool(jnp.isfinite(solution.model.inverse(cues).peak).all())


def test_more_pieces_than_different_positions_are_refused():
    positions, cues = jnp.repeat(problem(7)[0][:3], 10, axis=0), problem(7)[1]
    with pytest.raises(InputError, match="between 1 and the 3 different positions"):
        PPAM.init(positions, cues, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, 0], y, 2), "positions must be real of shape"),
        (lambda x, y: (x, y.at[0, 0].set(jnp.nan), 2), "cues must be finite"),
        (lambda x, y: (x[:5], y, 2), "as many rows"),
        (lambda x, y: (x, y, 31), "num_pieces must be between 1 and the 30 different positions"),
        (lambda x, y: (x, y, 0), "num_pieces must be between"),
    ],
)
def test_odd_input_is_refused(change, message):
    positions, cues, _ = problem(8)
    with pytest.raises(InputError, match=message):
        PPAM.init(*change(positions, cues))


def test_data_of_other_columns_are_refused(fitted):
    positions, cues, _ = problem(9, num_cues=3)
    with pytest.raises(InputError, match="must have 2 and 4 columns"):
        vbss.fit(fitted, (positions, cues))
