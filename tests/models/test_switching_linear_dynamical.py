"""The switching linear dynamical system against all paths of its switches, and against the system without switches."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from scipy.special import logsumexp
from state_space_reference import smoothed

import vbss
from vbss.context import relaxed_promotion
from vbss.models import SwitchingLinearDynamicalSystem

CHANNELS, LATENTS, SWITCHES = 3, 2, 2


def turn(angle):
    return 0.97 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def true_model(switches=SWITCHES):
    """States that turn slowly one way, or fast the other way."""
    generator = np.random.default_rng(0)
    stay = np.full((switches, switches), 0.05) + (1 - 0.05 * switches) * np.eye(switches)
    return SwitchingLinearDynamicalSystem(
        log_initial_switch=jnp.full(switches, -np.log(switches)),
        log_switch=jnp.log(stay),
        initial_loc=jnp.array([2.0, 0.0]),
        initial_precision=2 * jnp.eye(LATENTS),
        transition=jnp.asarray(np.stack([turn(0.3), turn(-0.8)])[:switches]),
        drift=jnp.asarray(0.1 * generator.standard_normal((switches, LATENTS))),
        precision=jnp.broadcast_to(20 * jnp.eye(LATENTS), (switches, LATENTS, LATENTS)),
        loading=jnp.asarray(generator.standard_normal((CHANNELS, LATENTS))),
        offset=jnp.asarray(generator.standard_normal(CHANNELS)),
        observation_precision=jnp.array([20.0, 40.0, 80.0]),
    )


def simulated(model, length):
    with relaxed_promotion():
        drawn = Predictive(handlers.uncondition(model), num_samples=1)(jr.key(1), jnp.zeros((length, CHANNELS)))
    return drawn["observations"][0], drawn["switch"][0]


def evidence_given(model, observations, path, is_observed=None):
    """log p(observations | switches)."""
    chain = {
        "initial_loc": model.initial_loc,
        "initial_precision": model.initial_precision,
        "transition": np.asarray(model.transition),
        "precision": np.asarray(model.precision),
        "offset": np.asarray(model.drift),
        "gate": np.eye(len(model.drift))[list(path)],
    }
    return smoothed(chain, model.loading, model.offset, model.observation_precision, observations, is_observed)[0]


def path_log_prob(model, path):
    steps = sum(float(model.log_switch[i, j]) for i, j in itertools.pairwise(path))
    return float(model.log_initial_switch[path[0]]) + steps


def inferred(model, *data, steps=20):
    """The inference of one recording with the model's own parameters."""
    algorithm = vbss.EM(0.0, frozen=model.parameter_kinds(), probes=False)
    return vbss.fit(model, data, algorithm, max_steps=steps)


def test_the_bound_is_below_the_evidence_of_all_paths_and_near():
    model = true_model()
    observations, _ = simulated(model, 6)
    is_observed = jnp.ones((6, CHANNELS), bool).at[2, 1].set(False)
    paths = list(itertools.product(range(SWITCHES), repeat=5))
    evidence = logsumexp(
        [path_log_prob(model, path) + evidence_given(model, observations, path, is_observed) for path in paths]
    )
    bounds = inferred(model, observations, is_observed).elbo
    assert (np.diff(bounds) > -1e-9).all()
    assert evidence - 1.0 < bounds[-1] < evidence


def test_switches_that_change_nothing_leave_the_evidence():
    model = true_model()
    same = {name: getattr(model, name)[:1].repeat(SWITCHES, 0) for name in ("transition", "drift", "precision")}
    model = model.replace(**same)
    observations, _ = simulated(model, 6)
    solution = inferred(model, observations, steps=2)
    np.testing.assert_allclose(solution.elbo[-1], evidence_given(model, observations, [0] * 5), rtol=1e-10)
    # Nothing is learnt of the switches: their marginals are those of the prior, which is stationary here.
    np.testing.assert_allclose(solution.posterior["switch"].probs, 0.5, rtol=1e-9)


def test_one_switch_is_the_linear_dynamical_system():
    model = true_model(1)
    observations, _ = simulated(model, 6)
    solution = inferred(model, observations, steps=1)
    np.testing.assert_allclose(solution.elbo[-1], evidence_given(model, observations, [0] * 5), rtol=1e-10)


def test_the_switches_of_a_known_model_are_found():
    model = true_model()
    observations, switches = simulated(model, 150)
    solution = inferred(model, observations)
    agreement = (solution.posterior["switch"].probs.argmax(-1) == switches).mean()
    assert agreement > 0.95


def test_em_climbs():
    model = true_model()
    observations, _ = simulated(model, 60)
    start = SwitchingLinearDynamicalSystem.init(observations, LATENTS, SWITCHES, key=jr.key(0))
    solution = vbss.fit(start, observations, vbss.EM(0.0), max_steps=20)
    assert (np.diff(solution.elbo) > -1e-8 * np.abs(solution.elbo[1:])).all()
    assert solution.elbo[-1] > solution.elbo[1]
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), solution.model))


def test_bad_input_is_refused():
    observations = jnp.asarray(np.random.default_rng(0).standard_normal((5, CHANNELS)))

    def start(observations, **sizes):
        sizes = {"num_latents": 1, "num_switches": 1} | sizes
        return SwitchingLinearDynamicalSystem.init(observations, **sizes, key=jr.key(0))

    with pytest.raises(ValueError, match=r"observations must have shape \(T, D\) with T >= 3.*\(2, 3\)"):
        start(observations[:2])
    with pytest.raises(ValueError, match="num_switches must be a whole number, 1 or more"):
        start(observations, num_switches=0)
    with pytest.raises(ValueError, match="num_latents must be a whole number, 1 or more"):
        start(observations, num_latents=0)
    with pytest.raises(ValueError, match="with T >= 3"):
        true_model().validate(observations[:2])
