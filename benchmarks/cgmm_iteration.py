"""Time of one full E + M iteration of the LDA-cGMM: derived updates against hand-derived ones, in one run.

    python benchmarks/cgmm_iteration.py [--frames 314] [--frequencies 257] [--directions 72] [--sources 2] [--rounds 15]

Single thread, float32. Iterations run inside one compiled loop with the data as arguments; the two are timed in turn,
round by round, and the ratio is taken within each round. The bound is part of each iteration, as in `vbss.fit`.
"""

import argparse
import os
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vbss.expectation import observe
from vbss.factorization import initial_posterior
from vbss.inference import EM
from vbss.models import LDACGMM

_ITERATIONS = 20


def _problem(frames: int, frequencies: int, directions: int, sources: int):
    generator = np.random.default_rng(0)
    hertz = np.linspace(0, 4000, frequencies)
    microphones = 0.04 * np.exp(2j * np.pi * np.arange(4) / 4)
    azimuths = np.exp(2j * np.pi * np.arange(directions) / directions)
    delays = (microphones[None] * azimuths[:, None].conj()).real / 343.0
    steering = np.exp(2j * np.pi * hertz[:, None, None] * delays[None]).astype(np.complex64)
    noise = generator.normal(size=(2, frequencies, frames, 4))
    sparse = generator.gamma(0.2, size=(sources, frequencies, frames, 1))
    phases = np.exp(2j * np.pi * generator.random((sources, frequencies, frames, 1)))
    chosen = steering[:, :: directions // sources][:, :sources].transpose(1, 0, 2)[:, :, None, :]
    mixture = (sparse * phases * chosen).sum(0) + 0.03 * (noise[0] + 1j * noise[1])
    mixture /= np.linalg.norm(mixture, axis=-1, keepdims=True)
    model = LDACGMM.init(jnp.asarray(steering), sources)
    return model, (jnp.asarray(mixture, jnp.complex64),)


@eqx.filter_jit
def _iterate(algorithm, model, posterior, data, observations):
    dynamic, static = eqx.partition(posterior, eqx.is_array)

    def step(arrays, _):
        posterior = eqx.combine(arrays, static)
        bound = algorithm.elbo(model, posterior, data, observations)
        _, posterior = algorithm.sweep(model, posterior, data, observations)
        return eqx.filter(posterior, eqx.is_array), bound

    return jax.lax.scan(step, dynamic, length=_ITERATIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=314)
    parser.add_argument("--frequencies", type=int, default=257)
    parser.add_argument("--directions", type=int, default=72)
    parser.add_argument("--sources", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    model, data = _problem(arguments.frames, arguments.frequencies, arguments.directions, arguments.sources)
    posterior = initial_posterior(model, data, jax.random.key(0), model.start(jax.random.key(0), *data))
    observations = jax.jit(lambda d: observe(model, posterior, d))(data)
    algorithms = {"hand-derived": EM(updates="closed"), "derived": EM(updates="derived")}
    times: dict[str, list[float]] = {name: [] for name in algorithms}
    ends = {}
    for name, algorithm in algorithms.items():
        begin = time.perf_counter()
        ends[name] = jax.block_until_ready(_iterate(algorithm, model, posterior, data, observations))
        print(f"{name}: first call {time.perf_counter() - begin:.2f} s, bound {float(ends[name][1][-1]):.1f}")
    for _ in range(arguments.rounds):
        for name, algorithm in algorithms.items():
            begin = time.perf_counter()
            jax.block_until_ready(_iterate(algorithm, model, posterior, data, observations))
            times[name].append((time.perf_counter() - begin) / _ITERATIONS * 1e3)
    for name, values in times.items():
        print(f"{name}: {np.median(values):.2f} ms an iteration (min {min(values):.2f}, max {max(values):.2f})")
    ratios = np.asarray(times["derived"]) / np.asarray(times["hand-derived"])
    print(
        f"ratio derived / hand-derived: median {np.median(ratios):.3f} (min {ratios.min():.3f}, max {ratios.max():.3f})"
    )


if __name__ == "__main__":
    main()
