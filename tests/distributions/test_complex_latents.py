"""Complex latents in NumPyro's own inference, against the posteriors of conjugate programs."""

import jax
import jax.random as jr
import numpy as np
import numpyro
import optax
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO, init_to_feasible
from numpyro.infer.autoguide import AutoNormal

from vbss import hermitian
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexInverseWishart, ComplexMultivariateNormal, ComplexNormal

packed = jax.jit(hermitian.pack)


def complex_numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal((*shape, 2)) @ [1, 1j]


PRIOR_COVARIANCE = np.array([[1.0, 0.6j], [-0.6j, 2.0]])
NOISE_PRECISION = np.array([[0.6, 0.3], [0.3, 0.4]])
DEGREES, SCALE = 5.0, np.array([[3.0, 1 - 1j], [1 + 1j, 2.0]])
SCALARS, VECTORS = 2 - 1j + complex_numbers(0, 4), 1j + complex_numbers(1, 5, 2)
COVARIED = complex_numbers(2, 8, 2) @ np.array([[1, 0.5j], [0, 0.7]])


def program(packed_scale):
    """A scalar, a vector and a covariance, each with its own data: the posterior is the product of three."""
    scalar = numpyro.sample("scalar", ComplexNormal(1.0, 2.0))
    vector = numpyro.sample("vector", ComplexMultivariateNormal(0.0, covariance_matrix=PRIOR_COVARIANCE))
    covariance = numpyro.sample("covariance", ComplexInverseWishart(DEGREES, packed_scale))
    noisy_vector = ComplexMultivariateNormal(vector, precision_matrix=NOISE_PRECISION)
    numpyro.sample("scalars", ComplexNormal(scalar, 1.5).expand((len(SCALARS),)).to_event(1), obs=SCALARS)
    numpyro.sample("vectors", noisy_vector.expand((len(VECTORS),)).to_event(1), obs=VECTORS)
    with numpyro.plate("n", len(COVARIED)):
        numpyro.sample("covaried", ComplexMultivariateNormal(0.0, covariance_matrix=covariance), obs=COVARIED)


def scalar_posterior():
    """Mean and precision."""
    precision = 1 / 2.0**2 + len(SCALARS) / 1.5**2
    return (1.0 / 2.0**2 + SCALARS.sum() / 1.5**2) / precision, precision


def vector_posterior():
    """Mean and precision."""
    precision = np.linalg.inv(PRIOR_COVARIANCE) + len(VECTORS) * NOISE_PRECISION
    return np.linalg.solve(precision, NOISE_PRECISION @ VECTORS.sum(0)), precision


def covariance_posterior():
    """Degrees of freedom and scale."""
    return DEGREES + len(COVARIED), SCALE + COVARIED.T @ COVARIED.conj()


def assert_mean(samples, expected):
    """The mean of real samples is within five standard errors of a chain as correlated as this one is."""
    num_independent = effective_sample_size(samples[None])
    assert (num_independent > 50).all()
    assert (np.abs(samples.mean(0) - expected) <= 5 * samples.std(0) / np.sqrt(num_independent)).all()


def test_nuts_samples_the_posterior():
    num_samples = 600
    with relaxed_promotion():
        sampler = MCMC(NUTS(program), num_warmup=200, num_samples=num_samples, progress_bar=False)
        sampler.run(jr.key(0), packed(SCALE))
        samples = {name: np.asarray(draws) for name, draws in sampler.get_samples().items()}
    assert samples["scalar"].shape == (num_samples,) and samples["scalar"].dtype == complex

    for name, (mean, precision) in {"scalar": scalar_posterior(), "vector": vector_posterior()}.items():
        deviation = (samples[name] - mean).reshape(num_samples, -1)
        assert_mean(np.concatenate([deviation.real, deviation.imag], -1), 0.0)
        covariance = np.linalg.inv(np.reshape(precision, 2 * deviation.shape[1:]))
        assert_mean(np.asarray(packed(deviation[:, :, None] * deviation[:, None].conj())), packed(covariance + 0j))

    degrees, scale = covariance_posterior()
    assert_mean(np.asarray(packed(samples["covariance"])), packed(scale / (degrees - 2)))
    assert_mean(np.asarray(packed(np.linalg.inv(samples["covariance"]))), packed(degrees * np.linalg.inv(scale)))


def test_svi_finds_the_best_factorised_normal():
    with relaxed_promotion():
        guide = AutoNormal(program, init_loc_fn=init_to_feasible)
        optimiser = optax.adam(optax.exponential_decay(0.05, 300, 0.3))
        svi = SVI(program, guide, optimiser, Trace_ELBO(num_particles=8))
        result = svi.run(jr.key(0), 1200, packed(SCALE), progress_bar=False)
        samples = guide.sample_posterior(jr.key(1), result.params, sample_shape=(20_000,))
    samples = {name: np.asarray(draws) for name, draws in samples.items()}

    for name, (mean, precision) in {"scalar": scalar_posterior(), "vector": vector_posterior()}.items():
        # Real and imaginary parts of all entries are independent in the guide: it has the posterior's mean, and the
        # conditional variances, whose sum over the two parts is the reciprocal of the precision's diagonal.
        variance = 1 / np.diagonal(np.reshape(precision, (mean.size, mean.size))).real
        np.testing.assert_allclose(samples[name].mean(0), mean, atol=0.03)
        np.testing.assert_allclose(samples[name].var(0).ravel(), variance, rtol=0.1)
    degrees, scale = covariance_posterior()
    mean = scale / (degrees - 2)
    np.testing.assert_allclose(samples["covariance"].mean(0), mean, atol=0.1 * np.abs(mean).max())
