"""Kernels leave a posterior that is known as it is; those that may not be used are refused, and are indeed wrong."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import vbss
from vbss.errors import InputError
from vbss.inference.metropolis import Metropolis
from vbss.inference.separable import Elements
from vbss.inference.unconstrained import unconstrained


class Coupled(vbss.Model):
    """x_nd ~ N(0, 1), y_n ~ N(sum_d x_nd + coupling x_(n-1)0, 1/2): a posterior that is normal."""

    coupling: float

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            x = numpyro.sample("x", dist.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1))
            loc = x.sum(-1) + self.coupling * jnp.roll(x[..., 0], 1, -1)
            numpyro.sample("y", dist.Normal(loc, 0.5**0.5), obs=y)


Y = np.array([1.0, -2.0, 0.5])


def exact(coupling):
    """Mean and covariance of the posterior, over the coordinates of a position."""
    rows = np.zeros((3, 6))
    for n in range(3):
        rows[n, 2 * n : 2 * n + 2] = 1
        rows[n, 2 * ((n - 1) % 3)] += coupling
    covariance = np.linalg.inv(np.eye(6) + 2 * rows.T @ rows)
    return 2 * covariance @ rows.T @ Y, covariance


def drawn(kernel, coupling, num_steps=4000, num_chains=40):
    target = unconstrained(Coupled(coupling), (jnp.asarray(Y),), {}, jr.key(0), probes=False)
    start = jr.normal(jr.key(1), (num_chains, target.size))

    @jax.jit
    def run(start):
        chains = kernel.begin(target, start, jr.key(2))

        def step(chains, _):
            chains = kernel.draw(target, chains)
            return chains, chains.z

        return jax.lax.scan(step, chains, None, num_steps)[1]

    return np.asarray(run(start))[num_steps // 3 :].reshape(-1, target.size)


def distance(draws, coupling):
    """Of moments of draws from the exact ones, in standard deviations."""
    mean, covariance = exact(coupling)
    scale = np.sqrt(np.diag(covariance))
    moved = np.abs(draws.mean(0) - mean) / scale
    spread = np.abs(np.cov(draws.T) - covariance) / np.outer(scale, scale)
    return max(moved.max(), spread.max())


@pytest.mark.parametrize(
    ("kernel", "coupling"),
    [
        (Metropolis(0.7), 0.9),
        (Metropolis(0.7, "n"), 0.0),
        (vbss.MALA(0.1), 0.9),
        (vbss.MALA(0.2, "n"), 0.0),
        (vbss.NUTS(300, 0.8, 5), 0.9),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_posterior_stays_as_it_is(kernel, coupling):
    num_steps = 1000 if isinstance(kernel, vbss.NUTS) else 4000
    assert distance(drawn(kernel, coupling, num_steps), coupling) < 0.06


def test_langevin_is_near_it_and_nearer_with_smaller_steps():
    far, near = (distance(drawn(vbss.Langevin(step), 0.9), 0.9) for step in (0.1, 0.02))
    assert near < 0.1 < far


def test_acceptance_by_elements_that_depend_on_each_other_is_wrong_and_refused():
    kernel = Metropolis(0.7, "n")
    # What public code does under a recurrent decoder: each frame is accepted by its own terms alone.
    assert distance(drawn(kernel, 0.9), 0.9) > 0.3
    model, y = Coupled(0.9), jnp.asarray(Y)
    for refused in (kernel, vbss.MALA(0.2, "n")):
        with pytest.raises(InputError, match="depends on the latents of others"):
            vbss.fit(model, y, vbss.MonteCarloEM(kernel=refused))
    allowed = vbss.fit(Coupled(0.0), y, vbss.MonteCarloEM(kernel=kernel), max_steps=2)
    assert np.isfinite(allowed.elbo).all()


def test_densities_of_elements_add_up():
    target = unconstrained(Coupled(0.9), (jnp.asarray(Y),), {}, jr.key(0), probes=False)
    position = jr.normal(jr.key(1), (6,))
    parts = Elements.of(target, "n").log_densities(position)
    assert parts.shape == (3,)
    np.testing.assert_allclose(parts.sum(), target.log_density(position), rtol=1e-12)


def test_ascent_reaches_the_most_probable_position():
    algorithm = vbss.MonteCarloEM(1, kernel=vbss.Ascent(0.05), num_kernel_steps=50, tolerance=0.0)
    solution = vbss.fit(Coupled(0.9), jnp.asarray(Y), algorithm, max_steps=20)
    np.testing.assert_allclose(solution.posterior.samples["x"].ravel(), exact(0.9)[0], atol=1e-3)
    assert solution.elbo[-1] > solution.elbo[0]


def test_another_kernel_goes_on_from_the_draws():
    model, y = Coupled(0.0), jnp.asarray(Y)
    first = vbss.fit(model, y, vbss.MonteCarloEM(2, kernel=vbss.Langevin(0.02)), max_steps=3)
    for kernel in (Metropolis(0.1), Metropolis(0.1, "n"), vbss.MALA(0.1, "n"), vbss.MALA(0.1), vbss.Ascent(0.1)):
        second = vbss.fit(model, y, vbss.MonteCarloEM(2, kernel=kernel), start=first, max_steps=1)
        assert np.isfinite(second.elbo).all()
        first = second


class Outside(vbss.Model):
    def __call__(self, y):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("n", y.shape[0]):
            x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
            numpyro.sample("y", dist.Normal(x, scale), obs=y)


class Positive(vbss.Model):
    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "plate", "message"),
    [
        (Outside(), "n", "'scale' stands outside of plate 'n'"),
        (Positive(), "n", "'x' must be real"),
        (Coupled(0.0), "m", r"outside of plate 'm'; the program has \['n'\]"),
    ],
)
def test_plates_that_cannot_be_taken_apart_are_refused(model, plate, message):
    with pytest.raises(InputError, match=message):
        vbss.fit(model, jnp.asarray(Y), vbss.MonteCarloEM(kernel=Metropolis(0.1, plate)))


def test_settings_are_checked():
    makers = (
        lambda: Metropolis(0.0), lambda: vbss.Langevin(-1.0), lambda: vbss.MALA(np.inf), lambda: vbss.Ascent(0.0),
    )  # fmt: skip
    for make in makers:
        with pytest.raises(InputError, match="positive"):
            make()
    with pytest.raises(InputError, match="num_kept"):
        vbss.MonteCarloEM(kernel=Metropolis(), num_kept=2)
