"""The loop: statuses, traces, starts, interruption and resume, one compilation a shape, batches."""

import sys
from functools import partial
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from programs import gaussian_mixture, lda_cgmm

import vbss
from vbss.context import relaxed_promotion
from vbss.distributions import Indicator
from vbss.expectation import elbo, observe
from vbss.factorization import initial_posterior
from vbss.inference import fit as fit_function
from vbss.models import GaussianMixture


@pytest.fixture(scope="module")
def mixture():
    y = jnp.concatenate([jr.normal(jr.key(0), (60, 2)) + 3, jr.normal(jr.key(1), (40, 2)) - 3])
    return GaussianMixture.init(y, 2, key=jr.key(2)), y


def test_converges_with_a_rising_trace(mixture):
    model, y = mixture
    solution = vbss.fit(model, y, vbss.EM(tolerance=1e-8))
    assert solution.status is vbss.Status.converged
    assert solution.elbo.shape == (solution.num_steps + 1,)
    assert np.diff(solution.elbo).min() > -1e-9
    assert type(solution.model) is GaussianMixture
    np.testing.assert_allclose(sorted(jnp.exp(solution.model.log_weights)), [0.4, 0.6], atol=0.02)


@pytest.mark.parametrize("max_steps", [0, 1, 9, 10, 11])
def test_max_steps_is_exact_at_and_around_a_chunk(mixture, max_steps):
    model, y = mixture
    solution = vbss.fit(model, y, vbss.EM(tolerance=0.0), max_steps=max_steps)
    assert solution.status is vbss.Status.max_steps
    assert solution.num_steps == max_steps
    assert solution.elbo.shape == (max_steps + 1,)
    long = vbss.fit(model, y, vbss.EM(tolerance=0.0), max_steps=12)
    np.testing.assert_allclose(solution.elbo, long.elbo[: max_steps + 1], rtol=1e-13)


def test_trace_ends_with_the_bound_of_what_is_returned(mixture):
    model, y = mixture
    solution = vbss.fit(model, y, max_steps=4)
    observations = observe(solution.model, solution.posterior, (y,))
    np.testing.assert_allclose(elbo(solution.model, solution.posterior, (y,), observations), solution.elbo[-1])


def test_resume_is_bit_equal(mixture):
    model, y = mixture
    algorithm = vbss.EM(tolerance=0.0)
    whole = vbss.fit(model, y, algorithm, max_steps=17)
    first = vbss.fit(model, y, algorithm, max_steps=6)
    rest = vbss.fit(model, y, algorithm, start=first, max_steps=11)
    for a, b in zip(jax.tree.leaves(whole.model), jax.tree.leaves(rest.model), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(whole.posterior), jax.tree.leaves(rest.posterior), strict=True):
        np.testing.assert_array_equal(a, b)


def test_interruption_keeps_what_was_done(mixture):
    model, y = mixture

    done = []

    def interrupt(step, max_steps, bound):
        assert np.isfinite(bound) and max_steps == 50
        done.append(step)
        raise KeyboardInterrupt

    stopped = vbss.fit(model, y, vbss.EM(tolerance=0.0), max_steps=50, progress=interrupt)
    assert stopped.status is vbss.Status.interrupted
    assert [stopped.num_steps] == done and 0 < stopped.num_steps < 50
    whole = vbss.fit(model, y, vbss.EM(tolerance=0.0), max_steps=stopped.num_steps)
    np.testing.assert_array_equal(stopped.model.loc, whole.model.loc)


def test_one_compilation_for_a_shape(mixture):
    model, y = mixture
    traces = 0

    class Counted(GaussianMixture):
        def __call__(self, observations):
            nonlocal traces
            traces += 1
            super().__call__(observations)

    counted = Counted(model.log_weights, model.loc, model.precision, model.anchor)
    solution = vbss.fit(counted, y, max_steps=12)
    after_first = traces
    vbss.fit(counted, y + 1.0, max_steps=25)
    vbss.fit(solution.model, y, max_steps=3)
    with relaxed_promotion():
        weak = eqx.tree_at(lambda m: m.log_weights, counted, jnp.log(jnp.array([0.5, 0.5])) * 1.0)
    vbss.fit(weak, y, max_steps=3)
    assert traces == after_first


def test_start_is_taken_and_checked(mixture):
    model, y = mixture
    probs = jax.nn.softmax(jr.normal(jr.key(3), (100, 2)), -1)
    solution = vbss.fit(model, y, start={"component": probs}, max_steps=0)
    np.testing.assert_allclose(solution.posterior["component"].probs, probs, atol=1e-12)
    with pytest.raises(ValueError, match="component"):
        vbss.fit(model, y, start={"component": probs[:5]})
    with pytest.raises(ValueError, match="'mask'"):
        vbss.fit(model, y, start={"mask": probs})


def test_bad_data_is_refused_by_name(mixture):
    model, y = mixture
    with pytest.raises(ValueError, match="nan"):
        vbss.fit(model, y.at[3, 1].set(jnp.nan))
    with pytest.raises(ValueError, match="empty"):
        vbss.fit(model, y[:0])
    with pytest.raises(ValueError, match="columns"):
        vbss.fit(model, y[:, :1])
    with pytest.raises(ValueError, match="max_steps"):
        vbss.fit(model, y, max_steps=-1)


def test_bad_algorithm_is_refused():
    with pytest.raises(ValueError, match="tolerance"):
        vbss.EM(tolerance=-1.0)
    model, data = _cgmm()
    with pytest.raises(ValueError, match="no hand-derived update"):
        vbss.fit(gaussian_mixture(jr.key(0))[0], gaussian_mixture(jr.key(0))[1], vbss.EM(updates="closed"))

    class Scheduled(type(model)):
        schedule = ("direction",)

    with pytest.raises(ValueError, match="schedule"):
        vbss.fit(Scheduled(model.templates, model.degrees_of_freedom, model.loading, 2), data)


def _cgmm():
    with relaxed_promotion():
        return lda_cgmm(jr.key(4))


def test_planted_mistake_is_caught_by_status_and_checker():
    model, data = _cgmm()

    class Mistaken(type(model)):
        """The printed equation (9): G in place of (nu - M) G."""

        def closed_forms(self):
            right = super().closed_forms()

            def spatial_covariance(model, posterior, data, observations):
                natural = right["spatial_covariance"](model, posterior, data, observations)
                nu, size = model.degrees_of_freedom, 2
                return {**natural, "precision": natural["precision"] + (nu - size - 1) * model.templates}

            return {**right, "spatial_covariance": spatial_covariance}

    mistaken = Mistaken(model.templates, model.degrees_of_freedom, model.loading, model.num_sources)
    assert vbss.check_derivation(model, data, contract=False).passed
    report = vbss.check_derivation(mistaken, data, contract=False)
    assert not report.passed
    assert report.failures == ("spatial_covariance",)
    assert "FAILED" in str(report)
    assert vbss.fit(model, data, vbss.EM(tolerance=0.0), max_steps=30).status is not vbss.Status.bound_decreased
    solution = vbss.fit(mistaken, data, vbss.EM(tolerance=0.0), max_steps=30)
    assert solution.status is vbss.Status.bound_decreased


def test_mistaken_closed_bound_is_caught():
    model, data = _cgmm()

    class Mistaken(type(model)):
        def closed_forms(self):
            right = super().closed_forms()
            return {**right, "elbo": lambda *arguments: right["elbo"](*arguments) + 0.1}

    mistaken = Mistaken(model.templates, model.degrees_of_freedom, model.loading, model.num_sources)
    assert vbss.check_derivation(mistaken, data, num_states=1, contract=False).failures == ("elbo",)


def test_nonfinite_bound_is_a_status():
    model, data = gaussian_mixture(jr.key(0))
    solution = vbss.fit(model, data[0].at[0].set(1e200), max_steps=20)  # its square is infinite
    assert solution.status is vbss.Status.nonfinite


def test_program_without_an_observation_is_refused():
    class Blind(vbss.Model):
        def __call__(self, y):
            with numpyro.plate("n", y.shape[0]):
                vbss.indicator("z", jnp.log(jnp.array([0.5, 0.5])))

    with pytest.raises(ValueError, match="observes nothing"):
        vbss.fit(Blind(), jnp.ones(3))


def test_observed_indicators_are_counted_exactly():
    class Labelled(vbss.Model):
        log_weights: Annotated[jax.Array, vbss.Simplex()]

        def __call__(self, labels):
            with numpyro.plate("n", labels.shape[0]):
                numpyro.sample("z", Indicator(self.log_weights), obs=labels)

    labels = jnp.array([0, 0, 1, 0, 2, 0, 1, 0])
    solution = vbss.fit(Labelled(jnp.log(jnp.full(3, 1 / 3))), labels, max_steps=1)
    np.testing.assert_allclose(jnp.exp(solution.model.log_weights), [5 / 8, 2 / 8, 1 / 8], rtol=1e-12)


def test_scaled_latents_and_misnamed_closed_forms_are_refused():
    model, data = gaussian_mixture(jr.key(0))

    class Scaled(GaussianMixture):
        def __call__(self, observations):
            with handlers.scale(scale=2.0):
                super().__call__(observations)

    with pytest.raises(ValueError, match="'component' is scaled"):
        vbss.fit(Scaled(model.log_weights, model.loc, model.precision, model.anchor), data)

    class Misnamed(GaussianMixture):
        def closed_forms(self):
            return {"componnt": lambda *arguments: None}

    with pytest.raises(ValueError, match="'componnt'"):
        vbss.fit(Misnamed(model.log_weights, model.loc, model.precision, model.anchor), data)


def test_posterior_of_another_recording_length_is_refused(mixture):
    model, y = mixture
    solution = vbss.fit(model, y, max_steps=1)
    with pytest.raises(ValueError, match="'component' has arrays of shapes"):
        vbss.fit(model, y[:50], start=solution)


def test_unusable_parameters_are_named(mixture):
    model, y = mixture
    with pytest.raises(ValueError, match="GaussianMixture.loc"):
        vbss.fit(eqx.tree_at(lambda m: m.loc, model, model.loc.astype(int)), y)
    with pytest.raises(ValueError, match="data: must hold arrays"):
        vbss.fit(model, "recording.wav")


def test_a_batch_of_recordings_is_the_loop_over_them():
    model, _ = _cgmm()
    batch = jnp.stack([_recording(seed) for seed in range(3)])

    def infer(mixture, key):
        posterior = initial_posterior(model, (mixture,), key)
        observations = observe(model, posterior, (mixture,))
        step = partial(vbss.EM().sweep, data=(mixture,), observations=observations)
        _, posterior = jax.lax.fori_loop(0, 3, lambda _, carry: step(*carry), (model, posterior))
        return vbss.EM().elbo(model, posterior, (mixture,), observations)

    keys = jr.split(jr.key(5), 3)
    together = jax.jit(jax.vmap(infer))(batch, keys)
    alone = jax.jit(infer)
    np.testing.assert_allclose(together, [alone(x, key) for x, key in zip(batch, keys, strict=True)], rtol=1e-11)


def _recording(seed):
    return jr.normal(jr.key(seed), (2, 3, 2), complex)


def test_fit_is_the_packages_fit():
    assert vbss.fit is fit_function


def test_a_start_of_another_model_and_unusable_keys_are_named(mixture):
    model, y = mixture
    solution = vbss.fit(model, y, max_steps=1)
    other = GaussianMixture.init(y, 4, key=jr.key(0))
    with pytest.raises(ValueError, match="start: the solution is of a GaussianMixture with arrays of shapes"):
        vbss.fit(other, y, start=solution)
    with pytest.raises(ValueError, match="key must be one JAX random key"):
        vbss.fit(model, y, key=jnp.zeros(3))
    with pytest.raises(ValueError, match="frozen: 'lok'"):
        vbss.fit(model, y, vbss.EM(frozen="lok"), start=solution)
    with pytest.raises(ValueError, match="GaussianMixture.precision must be"):
        vbss.fit(eqx.tree_at(lambda m: m.precision, model, -model.precision), y)


def test_a_run_that_is_interrupted_before_its_first_step(mixture, monkeypatch):
    model, y = mixture

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[fit_function.__module__], "run_chunk", interrupt)
    solution = vbss.fit(model, y)
    assert solution.status is vbss.Status.interrupted
    assert solution.num_steps == 0 and solution.elbo.shape == (0,)


def test_masked_latents_are_refused():
    class Masked(vbss.Model):
        def __call__(self, y):
            with numpyro.plate("n", y.shape[0]), handlers.mask(mask=y > 0):
                x = numpyro.sample("x", dist.Normal(0.0, 1.0))
                numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    with pytest.raises(ValueError, match="'x' is masked"):
        vbss.fit(Masked(), jnp.arange(3.0))
