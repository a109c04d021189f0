"""Unknowns in which a covariance is linear: the majorise-minimise step, and the geometric mean that it needs."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss.additive import Additive, geometric_mean, improved_matrices, improved_scalars
from vbss.hermitian import inverse_and_log_determinant, pack, packed_identity, unpack

NUM_PROBLEMS = 100


def _positive(key, *shape):
    """Random packed Hermitian positive definite matrices of very unequal eigenvalues; the last number is their size."""
    key_root, key_scale = jr.split(key)
    root = jr.normal(key_root, (*shape, shape[-1]), complex)
    scale = jnp.exp(2 * jr.normal(key_scale, shape))
    return pack(jnp.einsum("...ij,...j,...kj->...ik", root, scale.astype(complex), root.conj()))


def _root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)[..., None, :]) @ vectors.conj().swapaxes(-1, -2)


@pytest.mark.parametrize("size", [2, 4])
def test_geometric_mean(size):
    first, second = _positive(jr.key(0), 50, size), _positive(jr.key(1), 50, size)
    half = _root(np.asarray(unpack(first)))
    inner = np.linalg.solve(half, np.linalg.solve(half, np.asarray(unpack(second))).conj().swapaxes(-1, -2))
    expected = half @ _root(inner) @ half
    found = np.asarray(unpack(jax.jit(geometric_mean)(first, second)))
    scale = np.abs(expected).max((-2, -1), keepdims=True)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-9)
    single = geometric_mean(first.astype(jnp.float32), second.astype(jnp.float32))
    np.testing.assert_allclose(np.asarray(unpack(single)) / scale, expected / scale, atol=2e-3)


def _problem(key, size=3, sources=2, frames=7):
    """A covariance S_n = sum_k v_kn R_k, and means of outer products of data, of full rank: there is a maximum."""
    keys = jr.split(key, 4)
    variance = jnp.exp(jr.normal(keys[0], (sources, frames)))
    data = jr.normal(keys[1], (frames, size, 2 * size), complex)
    scatter = pack(jnp.einsum("nip,njp->nij", data, data.conj()))
    return variance, _positive(keys[2], sources, size), scatter


def _log_density(variance, covariance, scatter):
    total = jnp.einsum("kp,kn->np", covariance, variance)
    inverse, log_determinant = inverse_and_log_determinant(total)
    return -(log_determinant + (inverse * scatter).sum(-1)).sum()


def _steps(key, num_steps):
    """Log densities over alternating steps of both unknowns, and the largest relative slopes before and after."""
    *start, scatter = _problem(key)

    def step(pair, _):
        variance, covariance = pair
        before = _log_density(variance, covariance, scatter)
        variance = Additive().maximize(lambda v: _log_density(v, covariance, scatter), variance)
        between = _log_density(variance, covariance, scatter)
        covariance = Additive(event_rank=1).maximize(lambda r: _log_density(variance, r, scatter), covariance)
        return (variance, covariance), jnp.stack([before, between])

    end, trace = jax.lax.scan(step, tuple(start), length=num_steps)
    return trace.reshape(-1), jnp.stack([_slope(*start, scatter), _slope(*end, scatter)])


def _slope(variance, covariance, scatter):
    """The largest derivative of the log density by a relative change of an unknown."""
    slopes = jax.grad(_log_density, (0, 1))(variance, covariance, scatter)
    root = jnp.linalg.cholesky(unpack(covariance))
    relative = jnp.einsum("...ji,...jk,...kl->...il", root.conj(), unpack(slopes[1]), root)
    return jnp.maximum(jnp.abs(slopes[0] * variance).max(), jnp.abs(relative).max())


def test_steps_never_fall_and_end_without_slope():
    traces, slopes = jax.jit(jax.vmap(lambda key: _steps(key, 300)))(jr.split(jr.key(0), NUM_PROBLEMS))
    assert np.diff(traces).min() > -1e-10
    assert (traces[:, 30] - traces[:, 0]).min() > 1
    assert np.median(slopes[:, 1] / slopes[:, 0]) < 1e-3


def test_scalar_step_is_the_itakura_saito_update():
    variance, covariance, _ = _problem(jr.key(1))
    spectrum, power = covariance[:, 0], jr.exponential(jr.key(2), (variance.shape[1],))

    def log_density(variance):
        total = spectrum @ variance
        return -(jnp.log(total) + power / total).sum()

    total = spectrum @ variance
    fit = spectrum[:, None] * (power / total**2)[None]
    expected = variance * jnp.sqrt(fit / (spectrum[:, None] / total[None]))
    np.testing.assert_allclose(Additive().maximize(log_density, variance), expected, rtol=1e-9)


def test_matrix_step_solves_its_equation():
    value, fit, cost = (_positive(jr.key(seed), 5, 3) for seed in range(3))
    after, value, fit, cost = (
        np.asarray(unpack(packed)) for packed in (improved_matrices(value, fit, cost), value, fit, cost)
    )
    target = value @ fit @ value
    scale = np.abs(target).max((-2, -1), keepdims=True)
    np.testing.assert_allclose(after @ cost @ after / scale, target / scale, atol=1e-9)


def test_what_nothing_depends_on_stays():
    value = jnp.array([2.0, 3.0])
    np.testing.assert_allclose(improved_scalars(value, jnp.array([0.0, 4.0]), jnp.array([0.0, 1.0])), [2.0, 6.0])
    matrices = _positive(jr.key(0), 2, 3)
    nothing = jnp.zeros_like(matrices)
    np.testing.assert_array_equal(improved_matrices(matrices, nothing, nothing), matrices)


def test_unknowns_keep_off_zero():
    smallest = jnp.finfo(jnp.float32).tiny ** 0.5
    value = jnp.ones(1, jnp.float32)
    for _ in range(10):
        value = improved_scalars(value, jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32))
    np.testing.assert_allclose(value, [smallest])
    # A rank-one fit for ever: the matrix narrows, and stays positive definite.
    vector = jnp.array([1.0, 1j, 0.5], jnp.complex64)
    fit = pack(vector[:, None] * vector[None].conj()) / 2.25
    matrix = cost = packed_identity(3, jnp.dtype(jnp.float32))
    step = jax.jit(improved_matrices)
    for _ in range(50):
        matrix = step(matrix, fit, cost)
    assert np.linalg.eigvalsh(np.asarray(unpack(matrix)))[0] > 0
    np.testing.assert_allclose(unpack(matrix), np.outer(vector, vector.conj()) / 2.25, atol=1e-2)


@pytest.mark.parametrize("event_rank", [0, 1])
def test_coordinates_are_free(event_rank):
    value = jnp.array([0.5, 2.0]) if event_rank == 0 else _positive(jr.key(0), 2, 3)
    kind = Additive(event_rank=event_rank)
    np.testing.assert_allclose(kind.constrain(kind.unconstrain(value)), value, rtol=1e-9)
    for candidate in (kind.perturbed(value, jr.key(1)), kind.constrain(kind.unconstrain(value) - 0.3)):
        assert candidate.shape == value.shape and bool(jnp.all(kind.support(candidate)))
        assert float(jnp.abs(candidate - value).min()) > 0


def test_event_rank_is_checked():
    with pytest.raises(ValueError, match="event_rank must be 0"):
        Additive(event_rank=2)


def test_what_rounding_says_of_a_fit_moves_no_entry_far():
    """In single precision the fit of a large value can come out as nothing at all."""
    value, cost = jnp.ones(2, jnp.float32), jnp.full(2, 10.0, jnp.float32)
    improved = improved_scalars(value, jnp.array([0.0, 1e-5], jnp.float32), cost)
    np.testing.assert_allclose(improved, [np.finfo(np.float32).eps ** 0.5, 1e-3], rtol=1e-6)
