"""The estimated bound of a normal q: NumPyro's, exact where that is known, and what training raises."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import TraceMeanField_ELBO

import vbss
from vbss.errors import InputError
from vbss.inference.reparameterised import estimated_bound
from vbss.models import SpectralVAE
from vbss.networks.codes import CodeNetwork
from vbss.networks.spectral_coder import FrameDecoder, FrameEncoder

FRAMES, FREQUENCIES, CODES = 6, 7, 2


@pytest.fixture(scope="module")
def parts():
    model = SpectralVAE(FrameDecoder(CODES, [4], FREQUENCIES, key=jr.key(0)))
    network = CodeNetwork((FrameEncoder(FREQUENCIES, [4], CODES, key=jr.key(1)),), ("codes",))
    return model, network, jnp.asarray(np.random.default_rng(0).exponential(size=(FRAMES, FREQUENCIES)))


def test_it_is_numpyros(parts):
    model, network, power = parts

    def guide(power):
        mean, log_variance = network(power)["codes"]
        with numpyro.plate("frames", FRAMES):
            numpyro.sample("codes", dist.Normal(mean, jnp.exp(log_variance / 2)).to_event(1))

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        theirs = -TraceMeanField_ELBO(num_particles=20000).loss(jr.key(2), {}, model, guide, power)
    normals = network(power)
    draws = jax.jit(jax.vmap(lambda key, weight: estimated_bound(model, (power,), {}, normals, key, weight), (0, None)))
    keys = jr.split(jr.key(3), 20000)
    ours = np.asarray(draws(keys, 1.0))
    assert abs(ours.mean() - theirs) < 5 * ours.std() / 20000**0.5 * 2**0.5
    mean, log_variance = normals["codes"]
    divergence = 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum()
    np.testing.assert_allclose(draws(keys[:3], 0.0) - draws(keys[:3], 1.0), divergence, rtol=1e-6)


def test_with_the_posterior_it_is_the_evidence():
    """Of a linear program q is exact, and the bound is log p at every draw that a symmetric one answers."""

    class Line(vbss.Model):
        def __call__(self, y):
            x = numpyro.sample("x", dist.Normal(1.0, 2.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    y = jnp.array(3.0)
    variance = 1 / (1 / 4 + 1)
    normals = {"x": (jnp.array(variance * (1 / 4 + 3.0)), jnp.log(jnp.array(variance)))}
    keys = jr.split(jr.key(0), 4000)
    bounds = np.asarray(jax.vmap(lambda key: estimated_bound(Line(), (y,), {}, normals, key))(keys))
    evidence = float(dist.Normal(1.0, 5**0.5).log_prob(y))
    assert abs(bounds.mean() - evidence) < 4 * bounds.std() / 4000**0.5


def test_training_raises_it_and_stops_and_goes_on(parts, tmp_path):
    model, network, _ = parts
    model, network = (jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree) for tree in (model, network))
    rng = np.random.default_rng(1)
    shape = np.exp(np.outer(rng.standard_normal(12 * FRAMES), np.linspace(-2, 2, FREQUENCIES))).astype(np.float32)
    items = list((shape * rng.exponential(size=shape.shape).astype(np.float32)).reshape(12, FRAMES, FREQUENCIES))
    amortised = vbss.AmortisedNormal(network, warm_up=2.0)
    settings = vbss.TrainingSettings(batch_size=4, max_epochs=6, learning_rate=0.02)
    whole = vbss.train(model, amortised, items[:8], items[8:], settings)
    assert whole.history[-1]["validation_bound"] > whole.history[0]["validation_bound"]
    few = vbss.TrainingSettings(batch_size=4, max_epochs=3, learning_rate=0.02)
    vbss.train(model, amortised, items[:8], items[8:], few, folder=tmp_path)
    second = vbss.train(model, amortised, items[:8], items[8:], settings, folder=tmp_path)
    for a, b in zip(jax.tree.leaves(whole.latest), jax.tree.leaves(second.latest), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.asarray(whole.model.decoder.layers.weights[0]) != np.asarray(model.decoder.layers.weights[0])).all()
    posterior = whole.amortised.posterior(whole.model, jnp.asarray(items[0]))
    assert isinstance(posterior["codes"], dist.Independent) and posterior.sample(jr.key(0), 3)["codes"].shape == (
        3, FRAMES, CODES,
    )  # fmt: skip


def test_networks_that_do_not_fit_are_refused(parts):
    model, network, power = parts
    other = CodeNetwork(network.encoders, ("thoughts",))
    with pytest.raises(InputError, match=r"must say q of \['codes'\], it says that of \['thoughts'\]"):
        vbss.AmortisedNormal(other).bound(model, power)
    with pytest.raises(InputError, match="shape"):
        vbss.AmortisedNormal(lambda power: {"codes": (jnp.zeros((2, 2)),) * 2}).bound(model, power)
    with pytest.raises(InputError, match="pair"):
        vbss.AmortisedNormal(lambda power: {"codes": jnp.zeros(2)}).bound(model, power)
    with pytest.raises(InputError, match="kl_weight"):
        vbss.AmortisedNormal(network, kl_weight=-1.0)

    class Scale(vbss.Model):
        def __call__(self, y):
            numpyro.sample("y", dist.Normal(0.0, numpyro.sample("s", dist.LogNormal(0.0, 1.0))), obs=y)

    with pytest.raises(InputError, match="must be real"):
        vbss.AmortisedNormal(lambda y: {"s": (jnp.array(0.0),) * 2}).bound(Scale(), jnp.array(1.0))

    class Mixed(vbss.Model):
        def __call__(self, y):
            with numpyro.plate("n", y.shape[0]):
                z = vbss.indicator("z", jnp.log(jnp.full(2, 0.5)))
                density = vbss.Normal(("k", jnp.arange(2.0)), ("", jnp.ones(())))
                numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)

    with pytest.raises(InputError, match="continuous latents alone"):
        vbss.fit(Mixed(), jnp.ones(2), vbss.AmortisedEM(lambda y: {}))
