"""What deriving the updates from the program costs: iterations, memory and compilation against hand-derived forms.

    python benchmarks/derived_updates.py [--only "hidden Markov"] [--rounds 15]

Single thread, float32. Iterations (all updates and the bound, as in `vbss.fit`) run inside one compiled loop with the
data as arguments. Times are of the processor, not of the clock; the two forms are run in turn, round by round, and the
ratio is taken within each round. Memory is what the compiled loop needs beside its arguments and results.

The hand-derived iterations are the model's own closed forms where it has them, otherwise those below: expected
statistics as one product of matrices (Gaussian mixture), one forward and one backward scan (hidden Markov model).
"""

import argparse
import os
import time
from collections.abc import Callable
from math import log, pi
from typing import Annotated, Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
from jaxtyping import Array

import vbss
from vbss.expectation import observe
from vbss.factorization import initial_posterior
from vbss.models import LDACGMM, GaussianMixture

Step = Callable[[Any, Any], tuple[Any, Array]]  # (state, data) -> the next state, the bound of the first
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


def gaussian_mixture(num: int = 100_000, components: int = 16, size: int = 8) -> Case:
    keys = jr.split(jr.key(0), 3)
    centers = 3 * jr.normal(keys[0], (components, size))
    y = jr.normal(keys[1], (num, size)) + centers[jr.randint(keys[2], (num,), 0, components)]
    model = GaussianMixture.init(y, components, key=jr.key(1))
    derived = by_engine(model, (y,), "derived")
    rows, columns = np.triu_indices(size)
    centred = y - model.anchor
    features = jnp.concatenate([centred[:, rows] * centred[:, columns], centred, jnp.ones((num, 1))], -1)
    multiplicity = np.where(rows == columns, 1, 2).astype(np.float32)

    def step(state, features):
        log_weights, loc, precision, logits = state
        linear = jnp.einsum("kij,kj->ki", precision, loc)
        log_determinant = 2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(precision), axis1=-2, axis2=-1)).sum(-1)
        constant = log_weights + 0.5 * (log_determinant - (linear * loc).sum(-1) - size * log(2 * pi))
        natural = jnp.concatenate([-0.5 * multiplicity * precision[:, rows, columns], linear, constant[:, None]], -1)
        joint = features @ natural.T
        log_probs = jax.nn.log_softmax(logits, -1)
        bound = (jnp.exp(log_probs) * (joint - log_probs)).sum()
        sums = jax.nn.softmax(joint, -1).T @ features
        counts = sums[:, -1]
        loc = sums[:, -1 - size : -1] / counts[:, None]
        second = jnp.zeros_like(precision).at[:, rows, columns].set(sums[:, : len(rows)])
        second = second.at[:, columns, rows].set(sums[:, : len(rows)]) / counts[:, None, None]
        factor = jnp.linalg.cholesky(second - loc[:, :, None] * loc[:, None, :])
        precision = jax.scipy.linalg.cho_solve((factor, True), jnp.broadcast_to(jnp.eye(size), precision.shape))
        return (jnp.log(counts / num), loc, precision, joint), bound

    logits = derived[1][1].factors["component"].natural["onehot"]
    state = (model.log_weights, model.loc - model.anchor, model.precision, logits)
    return (step, state, features), derived


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

    def emissions(loc, precision, y):
        return 0.5 * (jnp.log(precision) - log(2 * pi) - precision * (y[:, None] - loc) ** 2)

    def step(state, y):
        log_initial, log_transition, loc, precision = state
        likelihood = emissions(loc, precision, y)
        peak = likelihood.max(-1, keepdims=True)
        scaled, transition = jnp.exp(likelihood - peak), jnp.exp(log_transition)

        def forwards(predicted, weight):
            joint = predicted * weight
            total = joint.sum()
            return (joint / total) @ transition, (joint / total, total)

        def backwards(future, inputs):
            filtered, weight, total = inputs
            message = future * weight / total
            pair = filtered[:, None] * transition * message
            return transition @ message, pair

        _, (filtered, totals) = jax.lax.scan(forwards, jnp.exp(log_initial), scaled)
        inputs = (filtered[:-1], scaled[1:], totals[1:])
        _, pairs = jax.lax.scan(backwards, jnp.ones(states), inputs, reverse=True)
        probs = jnp.concatenate([pairs.sum(-1), filtered[-1:]])
        counts, transitions = probs.sum(0), pairs.sum(0)
        loc = probs.T @ y / counts
        precision = counts / (probs * (y[:, None] - loc) ** 2).sum(0)
        log_transition = jnp.log(transitions / transitions.sum(-1, keepdims=True))
        return (jnp.log(probs[0]), log_transition, loc, precision), (jnp.log(totals) + peak[:, 0]).sum()

    state = (uniform, log_transition, loc, jnp.ones(states))
    return (step, state, y), by_engine(model, (y,), "derived")


CASES: dict[str, Callable[[], Case]] = {
    "Gaussian mixture": gaussian_mixture,
    "LDA-cGMM": lda_cgmm,
    "hidden Markov": hidden_markov,
}


def compiled(step: Step, state: Any, data: Any, iterations: int) -> tuple[Any, float]:
    """The loop of iterations, and the processor's seconds that its compilation took."""
    loop = jax.jit(lambda state, data: jax.lax.scan(lambda s, _: step(s, data), state, length=iterations))
    begin = time.process_time()
    result = loop.lower(state, data).compile()
    return result, time.process_time() - begin


def measure(name: str, case: Case, rounds: int, iterations: int) -> None:
    times: list[list[float]] = [[], []]
    loops = [compiled(step, state, data, iterations) for step, state, data in case]
    ends = [jax.block_until_ready(loop(state, data)) for (loop, _), (_, state, data) in zip(loops, case, strict=True)]
    for _ in range(rounds):
        for (loop, _), (_, state, data), seconds in zip(loops, case, times, strict=True):
            begin = time.process_time()
            jax.block_until_ready(loop(state, data))
            seconds.append((time.process_time() - begin) / iterations)
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
