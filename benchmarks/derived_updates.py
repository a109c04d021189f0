"""What deriving the updates from the program costs: iterations, memory and compilation against hand-derived forms.

    python benchmarks/derived_updates.py [--only "hidden Markov"] [--rounds 15]

Products of matrices in one thread, float32. Iterations (all updates and the bound, as in `vbss.fit`) run inside one
compiled loop with the data as arguments. Times are of the processor, not of the clock; the two forms are run in turn,
round by round, and the ratio is taken within each round. Memory is what the compiled loop needs beside its arguments
and results. On a GPU, times are of the clock.

The hand-derived iterations are the model's own closed forms where it has them (LDA-cGMM, factor analysis), otherwise
those of `hand_derived.py`. The derived bound is that before the update of the posterior, the other mostly that after.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import equinox as eqx
import hand_derived
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
from hand_derived import Step
from jaxtyping import Array

import vbss
from vbss.compilation import batches_without_lapack
from vbss.expectation import observe
from vbss.factorization import initial_posterior
from vbss.models import LDACGMM, BayesianGaussianMixture, FactorAnalysis, GaussianMixture, LinearDynamicalSystem

Case = tuple[tuple[Step, Any, Any], tuple[Step, Any, Any]]  # (step, state, data), by hand and derived


def by_engine(model: vbss.Model, data: tuple, updates: str, start: dict | None = None) -> tuple[Step, Any, Any]:
    """The steps of `vbss.EM` on a model."""
    algorithm = vbss.EM(updates=updates)
    posterior = initial_posterior(model, data, jr.key(0), start)
    observations = eqx.filter_jit(observe)(model, posterior, data)
    arrays, static = eqx.partition((model, posterior), eqx.is_array)

    def step(arrays, inputs):
        model, posterior = eqx.combine(arrays, static)
        bound = algorithm.elbo(model, posterior, *inputs)
        return eqx.filter(algorithm.sweep(model, posterior, *inputs), eqx.is_array), bound

    return step, arrays, (data, observations)


def lda_cgmm(frames: int = 314, frequencies: int = 257, directions: int = 72, size: int = 4) -> Case:
    keys = jr.split(jr.key(0), 3)
    steering = jnp.exp(2j * jnp.pi * jr.uniform(keys[0], (frequencies, directions, size)))
    noise = jr.normal(keys[1], (frequencies, frames, size), jnp.complex64)
    mixture = noise * jr.gamma(keys[2], 0.3, (frequencies, frames, 1))
    model = LDACGMM.init(steering, 2)
    start = dict(model.start(jr.key(0), mixture))
    return by_engine(model, (mixture,), "closed", start), by_engine(model, (mixture,), "derived", start)


def clusters(num: int, components: int, size: int) -> Array:
    """Observations (N, D) in clusters that overlap."""
    keys = jr.split(jr.key(0), 3)
    centers = 3 * jr.normal(keys[0], (components, size))
    return jr.normal(keys[1], (num, size)) + centers[jr.randint(keys[2], (num,), 0, components)]


def gaussian_mixture(num: int = 100_000, components: int = 16, size: int = 8) -> Case:
    y = clusters(num, components, size)
    model = GaussianMixture.init(y, components, key=jr.key(1))
    derived = by_engine(model, (y,), "derived")
    logits = derived[1][1].factors["component"].natural["onehot"]
    log_determinant = jnp.linalg.slogdet(model.precision)[1]
    state = (model.log_weights, model.loc - model.anchor, model.precision, log_determinant, logits)
    return (hand_derived.gaussian_mixture(num, size), state, hand_derived.features(y - model.anchor)), derived


def bayesian_mixture(num: int = 100_000, components: int = 16, size: int = 8) -> Case:
    y = clusters(num, components, size)
    model = BayesianGaussianMixture.init(y, components)
    derived = by_engine(model, (y,), "derived")
    step = hand_derived.bayesian_mixture(model.concentration, model.loc_weight, model.degrees_of_freedom, model.scatter)
    logits = derived[1][1].factors["component"].natural["onehot"]
    return (step, logits, hand_derived.features(y - model.anchor)), derived


def factor_analysis(num: int = 2_000, size: int = 16, factors: int = 4) -> Case:
    keys = jr.split(jr.key(0), 3)
    y = jr.normal(keys[0], (num, factors)) @ jr.normal(keys[1], (factors, size)) + jr.normal(keys[2], (num, size))
    model = FactorAnalysis.init(y, factors, key=jr.key(1))
    return by_engine(model, (y,), "auto"), by_engine(model, (y,), "derived")


def linear_dynamical(length: int = 500, size: int = 10, latents: int = 4) -> Case:
    keys = jr.split(jr.key(0), 3)
    walk = jnp.cumsum(jr.normal(keys[0], (length, latents)), 0) / 10
    y = walk @ jr.normal(keys[1], (latents, size)) + jr.normal(keys[2], (length, size))
    model = LinearDynamicalSystem.init(y, latents, key=jr.key(1))
    state = (
        model.initial_loc,
        model.transition,
        jnp.linalg.inv(model.precision),
        model.loading,
        model.offset,
        model.observation_precision,
    )
    step = hand_derived.linear_dynamical(jnp.linalg.inv(model.initial_precision))
    return (step, state, y), by_engine(model, (y,), "derived")


class HiddenMarkov(vbss.Model):
    """A chain of hidden states with Gaussian emissions."""

    log_initial: Annotated[Array, vbss.Simplex()]
    log_transition: Annotated[Array, vbss.Simplex()]
    loc: Annotated[Array, vbss.Linear()]
    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        z = vbss.markov_chain("z", self.log_initial, self.log_transition, y.shape[0])
        with numpyro.plate("t", y.shape[0]):
            density = vbss.Normal(("k", self.loc), ("k", self.precision))
            numpyro.sample("y", vbss.Gated("t", {"tk": z}, density), obs=y)


def hidden_markov(length: int = 10_000, states: int = 8) -> Case:
    keys = jr.split(jr.key(0), 3)
    y = jr.normal(keys[0], (length,)) * 3
    log_transition = jax.nn.log_softmax(2 * jnp.eye(states) + jr.normal(keys[1], (states, states)), -1)
    loc, uniform = jnp.linspace(-5, 5, states), jnp.full(states, -jnp.log(states))
    model = HiddenMarkov(uniform, log_transition, loc, jnp.ones(states))

    state = (uniform, log_transition, loc, jnp.ones(states))
    return (hand_derived.hidden_markov(states), state, y), by_engine(model, (y,), "derived")


CASES: dict[str, Callable[[], Case]] = {
    "Gaussian mixture": gaussian_mixture,
    "LDA-cGMM": lda_cgmm,
    "hidden Markov": hidden_markov,
    "factor analysis": factor_analysis,
    "linear dynamical system": linear_dynamical,
    "Bayesian Gaussian mixture": bayesian_mixture,
}


def compiled(step: Step, state: Any, data: Any, iterations: int) -> tuple[Any, float]:
    """The loop of iterations, and the processor's seconds that its compilation took."""

    def loop(state, data):
        return jax.lax.scan(lambda s, _: step(s, data), state, length=iterations)

    begin = time.process_time()
    result = jax.jit(batches_without_lapack(loop)).lower(state, data).compile()
    return result, time.process_time() - begin


def measure(name: str, case: Case, rounds: int, iterations: int) -> None:
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    times: list[list[float]] = [[], []]
    loops = [compiled(step, state, data, iterations) for step, state, data in case]
    ends = [jax.block_until_ready(loop(state, data)) for (loop, _), (_, state, data) in zip(loops, case, strict=True)]
    for _ in range(rounds):
        for (loop, _), (_, state, data), seconds in zip(loops, case, times, strict=True):
            begin = clock()
            jax.block_until_ready(loop(state, data))
            seconds.append((clock() - begin) / iterations)
    for form, (loop, compilation), seconds, end in zip(("by hand", "derived"), loops, times, ends, strict=True):
        memory = loop.memory_analysis().temp_size_in_bytes / 2**20
        print(
            f"{name}, {form}: {np.median(seconds) * 1e3:.2f} ms an iteration (min {min(seconds) * 1e3:.2f}), "
            f"{memory:.1f} MiB, compiled in {compilation:.2f} s, last bound {float(end[1][-1]):.1f}"
        )
    ratios = np.asarray(times[1]) / np.asarray(times[0])
    print(f"{name}, derived / by hand: {np.median(ratios):.2f} (min {ratios.min():.2f}, max {ratios.max():.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--iterations", type=int, default=10, help="in one compiled loop")
    arguments = parser.parse_args()
    for name, build in CASES.items():
        if arguments.only in (None, name):
            measure(name, build(), arguments.rounds, arguments.iterations)


if __name__ == "__main__":
    main()
