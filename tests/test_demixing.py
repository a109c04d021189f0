"""Demixing matrices: their determinants and inverses, iterative projection, and what the kind reads and refuses."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import pytest

import vbss
from vbss.demixing import complex_rows, improved_rows, inverse, log_squared_determinants, real_rows
from vbss.hermitian import pack
from vbss.probes import ProgramError

SIZES = [1, 2, 4]


def _matrices(key, *shape):
    return jr.normal(key, (*shape, shape[-1]), complex)


def _scatters(key, *shape):
    root = jr.normal(key, (*shape, 2 * shape[-1]), complex)
    return pack(jnp.einsum("...ip,...jp->...ij", root, root.conj()))


@pytest.mark.parametrize("size", SIZES)
def test_determinant_and_inverse(size):
    matrix = _matrices(jr.key(0), 20, size)
    np.testing.assert_array_equal(complex_rows(real_rows(matrix)), matrix)
    expected = 2 * np.linalg.slogdet(np.asarray(matrix))[1]
    np.testing.assert_allclose(log_squared_determinants(real_rows(matrix)), expected, atol=1e-12)
    np.testing.assert_allclose(inverse(matrix), np.linalg.inv(np.asarray(matrix)), rtol=1e-9)


def test_float32_bears_rows_that_are_nearly_alike():
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(2, 50, 1, 4)), rng.normal(size=(2, 50, 4, 4))
    matrix = (common[0] + 1j * common[1] + 3e-3 * (own[0] + 1j * own[1])).astype(np.complex64)
    expected = 2 * np.linalg.slogdet(matrix.astype(complex))[1]
    found = log_squared_determinants(real_rows(jnp.asarray(matrix)))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("size", SIZES)
def test_sweeps_never_fall_and_end_without_slope(size):
    value, scatter = real_rows(_matrices(jr.key(1), 50, size)), _scatters(jr.key(2), 50, size, size)
    count = jr.uniform(jr.key(3), (50,), minval=1.0, maxval=9.0)

    def forms(value):
        rows = complex_rows(value)
        matrices = jnp.einsum("...m,...n->...mn", rows.conj(), rows)
        return count * log_squared_determinants(value) - (pack(matrices) * scatter).sum((-2, -1))

    def sweep(value, _):
        return improved_rows(value, count, scatter), forms(value)

    last, trace = jax.jit(lambda start: jax.lax.scan(sweep, start, length=400))(value)
    assert np.diff(trace, axis=0).min() > -1e-10
    slopes = [jnp.abs(jax.grad(lambda v: forms(v).sum())(v)).max((1, 2)) for v in (value, last)]
    assert np.median(slopes[1] / slopes[0]) < 1e-6 and np.max(slopes[1] / slopes[0]) < 1e-2


def test_what_nothing_depends_on_stays():
    value, scatter = real_rows(_matrices(jr.key(0), 3, 2)), _scatters(jr.key(1), 3, 2, 2)
    count = jnp.array([0.0, 5.0, 5.0])
    found = improved_rows(value, count, scatter.at[0].set(0).at[2, 1].set(0))  # and where there is no maximum
    np.testing.assert_array_equal(found[jnp.array([0, 2])], value[jnp.array([0, 2])])
    assert float(jnp.abs(found[1] - value[1]).min()) > 0


class Determined(vbss.Model):
    """Independent heavy-tailed or normal sources, as many as microphones: x = Q^-1 s."""

    is_normal: bool

    def __call__(self, powers, mixture):
        num_microphones = mixture.shape[-1]
        identity = jnp.eye(num_microphones, 2 * num_microphones)
        demixing = vbss.point("demixing", identity, vbss.Demixing())
        sources = jnp.einsum("mi,ni->nm", complex_rows(demixing), mixture)
        energy = (sources.real**2 + sources.imag**2) / powers
        if not self.is_normal:
            energy = jnp.sqrt(energy)
        log_determinant = len(mixture) * log_squared_determinants(demixing)
        numpyro.factor("mixture", log_determinant - energy.sum())


def _determined(key):
    keys = jr.split(key, 3)
    powers = jnp.exp(2 * jr.normal(keys[0], (200, 3)))
    sources = jnp.sqrt(powers).astype(complex) * jr.normal(keys[1], (200, 3), complex)
    return powers, jnp.einsum("im,nm->ni", _matrices(keys[2], 3), sources), sources


def test_a_program_of_a_user_finds_sources_of_known_powers():
    powers, mixture, sources = _determined(jr.key(0))
    solution = vbss.fit(Determined(True), (powers, mixture), vbss.EM(tolerance=0.0), max_steps=50)
    assert np.diff(solution.elbo).min() > -1e-9
    found = jnp.einsum("mi,ni->nm", complex_rows(solution.posterior.points["demixing"]), mixture)
    correlation = np.abs(np.corrcoef(np.asarray(found).T, np.asarray(sources).T)[:3, 3:])
    assert np.all(np.diag(correlation) > 0.95)


def test_other_programs_are_refused():
    powers, mixture, _ = _determined(jr.key(0))
    with pytest.raises(ProgramError, match="Hermitian form of each row"):
        vbss.fit(Determined(False), (powers, mixture), max_steps=1)


def test_coordinates_are_free():
    value, kind = real_rows(_matrices(jr.key(0), 4, 3)), vbss.Demixing()
    np.testing.assert_array_equal(kind.constrain(kind.unconstrain(value)), value)
    assert float(jnp.abs(kind.perturbed(value, jr.key(1)) - value).min()) > 0
