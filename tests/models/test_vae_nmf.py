"""Speech in noise: the marginal is the integral, steps never lower E[log p], and all algorithms find what was drawn."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpyro.infer.util import log_density

import vbss
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.inference.sampled_step import draws_at, improved
from vbss.inference.unconstrained import unconstrained
from vbss.models import VAENMF, SpectralVAE
from vbss.models.vae_nmf import steady_noise
from vbss.networks.codes import CodeNetwork
from vbss.networks.recurrent_coder import RecurrentDecoder
from vbss.networks.spectral_coder import FrameDecoder, FrameEncoder

FRAMES, FREQUENCIES, CODES = 12, 9, 2


def decoder(seed=0):
    return FrameDecoder(CODES, [5], FREQUENCIES, key=jr.key(seed))


def random_power(seed):
    power = np.random.default_rng(seed).exponential(size=(FRAMES, FREQUENCIES))
    return jnp.asarray(power / power.mean())


def drawn_scene(seed=0):
    """Codes, spectrum of speech and of their sum with steady noise, from the model."""
    rng = np.random.default_rng(seed)
    codes = 1.5 * rng.standard_normal((FRAMES, CODES))
    noise = np.full((FRAMES, FREQUENCIES), 0.3)
    noise[:, :3] = 3.0

    def normal(variance):
        return np.sqrt(variance / 2) * (rng.standard_normal(variance.shape) + 1j * rng.standard_normal(variance.shape))

    speech = normal(np.exp(np.asarray(decoder()(jnp.asarray(codes)))))
    mixture = speech + normal(noise)
    level = np.sqrt(np.mean(np.abs(mixture) ** 2))
    return speech / level, jnp.asarray(mixture / level)


def test_the_marginal_is_the_integral_over_the_speech():
    speech, noise, x = 0.7, 0.4, 0.3 - 0.8j
    grid = np.linspace(-8, 8, 801)
    s = grid[:, None] + 1j * grid[None]

    def density(value, variance):
        return np.exp(-(np.abs(value) ** 2) / variance) / (np.pi * variance)

    integral = (density(s, speech) * density(x - s, noise)).sum() * (grid[1] - grid[0]) ** 2
    model = VAENMF.init(FrameDecoder(1, [], 1, key=jr.key(0)), 1)
    codes, power = jnp.zeros((1, 1)), jnp.array([[abs(x) ** 2]])
    points = {"spectra": jnp.array([[1.0, noise]]), "activations": jnp.array([[speech], [1.0]])}
    with relaxed_promotion():
        log_p, _ = log_density(model, (power,), {}, {"codes_0": codes, **points})
    log_prior = -np.log(2 * np.pi) / 2
    # |x|^2 is exponential where x is circular normal: the same density but for pi.
    np.testing.assert_allclose(float(log_p) - log_prior, np.log(integral * np.pi), rtol=1e-9)


def test_the_loss_is_the_itakura_saito_divergence_but_for_a_constant():
    model, power = SpectralVAE(decoder()), random_power(1)

    def difference(codes):
        variance = np.exp(np.asarray(model.decoder(codes)))
        ratio = np.asarray(power) / variance
        divergence = (ratio - np.log(ratio) - 1).sum()
        with relaxed_promotion():
            log_p, _ = log_density(model, (power,), {}, {"codes": codes})
        log_prior = -0.5 * float((codes**2).sum()) - codes.size * np.log(2 * np.pi) / 2
        return divergence + float(log_p) - log_prior

    first, second = (difference(jr.normal(jr.key(seed), (FRAMES, CODES))) for seed in (0, 1))
    np.testing.assert_allclose(first, second, rtol=1e-10)


@pytest.mark.parametrize(("num_noise_spectra", "num_draws"), [(1, 1), (3, 4)])
def test_spectra_and_activations_never_lower_the_expected_density_of_200_problems(num_noise_spectra, num_draws):
    @jax.jit
    @jax.vmap
    def densities(key):
        key_power, key_start, key_codes = jr.split(key, 3)
        power = jr.exponential(key_power, (FRAMES, FREQUENCIES))
        power = power / power.mean()
        model = VAENMF.init(decoder(), num_noise_spectra)
        points = {name: value for name, value in model.start(key_start, power).items() if not name.startswith("codes")}
        target = unconstrained(model, (power,), points, jr.key(0), probes=False)
        positions = jr.normal(key_codes, (num_draws, target.size))
        found = [_expected(target, positions)]
        for block in ("spectra", "activations"):
            draws = draws_at(target, positions)
            _, points, _ = improved(model, target, (power,), (block,), draws, {}, jnp.ones(()))
            target = target.at(model, points)
            found.append(_expected(target, positions))
        return jnp.stack(found), points["spectra"][:, 0]

    expected, channels_of_the_speech = densities(jr.split(jr.key(0), 200))
    assert (jnp.diff(expected, axis=1) >= -1e-9 * jnp.abs(expected[:, :-1])).all()
    assert (expected[:, -1] > expected[:, 0]).all()
    np.testing.assert_array_equal(channels_of_the_speech, 1)  # they are held


def _expected(target, positions):
    return jax.vmap(target.log_density)(positions).mean()


def test_steady_noise_is_heard_where_there_is_sound():
    noise = 2.5 * jr.exponential(jr.key(0), (4000, 3)) * jnp.array([1.0, 4.0, 0.1])[None]
    expected = [2.5, 10, 0.25]
    np.testing.assert_allclose(steady_noise(noise), expected, rtol=0.1)
    np.testing.assert_allclose(steady_noise(jnp.concatenate([jnp.zeros((6000, 3)), noise])), expected, rtol=0.1)
    np.testing.assert_array_equal(steady_noise(jnp.zeros((5, 3))), 0)


ALGORITHMS = {
    "metropolis": lambda network: vbss.MonteCarloEM(
        1, kernel=vbss.Metropolis(0.3, "frames"), num_kernel_steps=20, num_kept=5, forgetting=0.0, tolerance=0.0
    ),
    "langevin": lambda network: vbss.MonteCarloEM(8, kernel=vbss.Langevin(0.02), forgetting=0.0, tolerance=0.0),
    "mala": lambda network: vbss.MonteCarloEM(4, kernel=vbss.MALA(0.05, "frames"), forgetting=0.0, tolerance=0.0),
    "point": lambda network: vbss.MonteCarloEM(1, kernel=vbss.Ascent(0.05), forgetting=0.0, tolerance=0.0),
    "tuned": lambda network: vbss.AmortisedEM(network, learning_rate=1e-2, tolerance=0.0),
    "svi": lambda network: vbss.SVI(optimizer=optax.adam(0.05), num_samples=20),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_takes_the_speech_out(name):
    speech, mixture = drawn_scene()
    model = VAENMF.init(decoder(), 2)
    network = CodeNetwork((FrameEncoder(FREQUENCIES, [5], CODES, key=jr.key(1)),), ("codes_0",))
    algorithm, max_steps = ALGORITHMS[name](network), 400 if name == "svi" else 120
    solution = vbss.fit(model, jnp.abs(mixture) ** 2, algorithm, max_steps=max_steps)
    assert np.isfinite(solution.elbo).all() and solution.elbo[-1] > solution.elbo[0]
    means, variances = model.sources(solution.posterior, mixture, jr.key(3))
    assert means.shape == variances.shape == (1, FRAMES, FREQUENCIES)
    before, after = (np.sum(np.abs(np.asarray(x) - speech) ** 2) for x in (mixture, means[0]))
    # Gradients of all at once, from a guide without a network, end in a poorer place than EM.
    assert after < (0.95 if name == "svi" else 0.6) * before
    if name == "svi":
        return
    # What the posterior thinks of its error is of the size of the error.
    assert 0.2 < float(variances.sum()) / after < 5
    if name == "metropolis":
        return
    again = vbss.fit(model, jnp.abs(mixture) ** 2, algorithm, start=solution, max_steps=2)
    assert again.elbo[0] > solution.elbo[0]


def test_of_speech_alone_codes_are_inferred_and_the_network_is_held():
    model = SpectralVAE(decoder())
    solution = vbss.fit(model, random_power(0), ALGORITHMS["mala"](None), max_steps=20)
    assert solution.elbo[-1] > solution.elbo[0] and solution.posterior.samples["codes"].shape == (4, 1, FRAMES, CODES)
    np.testing.assert_array_equal(solution.model.decoder.layers.weights[0], model.decoder.layers.weights[0])


def test_two_sources_share_the_mixture():
    model = VAENMF.init([decoder(0), decoder(1)], 0)
    power = random_power(3)
    algorithm = vbss.MonteCarloEM(2, kernel=vbss.Langevin(0.02), forgetting=0.0, tolerance=0.0)
    solution = vbss.fit(model, power, algorithm, max_steps=5)
    mixture = jnp.sqrt(power).astype(complex)
    means, _ = model.sources(solution.posterior, mixture, jr.key(0))
    np.testing.assert_allclose(means.sum(0), mixture, rtol=1e-10)
    np.testing.assert_array_equal(solution.posterior["spectra"], 1)


def test_frames_that_a_decoder_couples_are_not_accepted_by_themselves():
    model = VAENMF.init(RecurrentDecoder(CODES, 3, FREQUENCIES, key=jr.key(0)), 2)
    with pytest.raises(InputError, match="depends on the latents of others"):
        vbss.fit(model, random_power(0), vbss.MonteCarloEM(1, kernel=vbss.Metropolis(0.1, "frames")))
    solution = vbss.fit(model, random_power(0), vbss.MonteCarloEM(1, kernel=vbss.Metropolis(0.1)), max_steps=2)
    assert np.isfinite(solution.elbo).all()


@pytest.mark.parametrize(
    ("power", "message"),
    [
        (np.ones((3, FREQUENCIES + 1)), "power must be real of shape"),
        (np.ones((3, FREQUENCIES), complex), "power must be real"),
        (-np.ones((3, FREQUENCIES)), "must not be negative"),
        (np.zeros((3, FREQUENCIES)), "silent"),
    ],
)
def test_what_are_no_powers_is_refused(power, message):
    with pytest.raises(InputError, match=message):
        vbss.fit(VAENMF.init(decoder()), jnp.asarray(power), ALGORITHMS["langevin"](None))


def test_impossible_models_are_refused():
    with pytest.raises(InputError, match="num_noise_spectra"):
        VAENMF.init(decoder(), -1)
    with pytest.raises(InputError, match="same frequencies"):
        VAENMF.init([decoder(), FrameDecoder(CODES, [], 4, key=jr.key(0))])


def test_what_a_frozen_encoder_is_shown():
    """The expected power is the integral, and with points that stay, steps repeat it and the encoder in turn."""
    speech, noise, x = 0.7, 0.4, 0.3 - 0.8j
    grid = np.linspace(-8, 8, 801)
    s = grid[:, None] + 1j * grid[None]
    weight = np.exp(-(np.abs(s) ** 2) / speech - np.abs(x - s) ** 2 / noise)
    tiny = VAENMF.init(FrameDecoder(1, [], 1, key=jr.key(0)), 1)
    points = {"spectra": jnp.array([[1.0, noise]]), "activations": jnp.array([[speech], [1.0]])}
    (found,) = tiny.expected_power(points, {"codes_0": jnp.zeros((1, 1))}, jnp.array([[abs(x) ** 2]]))
    np.testing.assert_allclose(found, (weight * np.abs(s) ** 2).sum() / weight.sum(), rtol=1e-9)

    model, power = VAENMF.init(decoder(), 2), random_power(3)
    network = CodeNetwork((FrameEncoder(FREQUENCIES, [5], CODES, key=jr.key(4)),), ("codes_0",))
    start = dict(model.start(jr.key(5), power))
    algorithm = vbss.AmortisedEM(
        network, heard=VAENMF.expected_power, num_gradient_steps=0, frozen=("spectra", "activations")
    )
    solution = vbss.fit(model, power, algorithm, start=start, max_steps=3)

    def read(codes, power, times):
        for _ in range(times):
            (shown,) = model.expected_power(start, {"codes_0": codes}, power)
            codes = network(shown)["codes_0"][0]
        return codes

    np.testing.assert_allclose(solution.posterior["codes_0"].mean, read(start["codes_0"], power, 4), rtol=1e-6)
    # Of other data it goes on with the codes that it has, and is shown what those data say of them.
    other = vbss.fit(model, random_power(6), algorithm, start=solution, max_steps=1)
    third = read(start["codes_0"], power, 3)
    np.testing.assert_allclose(other.posterior["codes_0"].mean, read(third, random_power(6), 2), rtol=1e-6)
    two = VAENMF.init((decoder(), decoder(1)), 1)
    with pytest.raises(InputError, match="one source"):
        two.expected_power(two.start(jr.key(0), power), {}, power)
