"""What speech enhancement costs: iterations of every algorithm, and several files at once; compiled, one core.

    python benchmarks/enhancement_speed.py [--rounds 5]

The network that comes with vbss (513 frequencies), 5 s of exponential powers with a window every 16 ms or 33 ms, 8
spectra of noise, float32. CPU time, the least of the rounds: other programs only add to it. All threads share one core
(on Linux), as XLA's, given several, wait for each other at the processor's expense. The factor is the CPU time
of a whole `vbss.fit` of 100 iterations per second of sound. Files at once go through `vbss.fit_batch`.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vbss
from vbss.enhancement import ALGORITHMS
from vbss.enhancement.algorithms import algorithm_of
from vbss.inference.algorithm import Algorithm
from vbss.inference.fit import prepare
from vbss.inference.loop import real_dtype, run_chunk, strong
from vbss.models import VAENMF
from vbss.networks.codes import CodeNetwork

_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_SECONDS, _FRAMES, _FILES = 5.0, (313, 150), 4
_STEPS, _FEW = 100, 10


def seconds(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """CPU and wall time of each, the least of some rounds in which they take turns, after one that compiles."""
    least = {name: (np.inf, np.inf) for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            begun = time.process_time(), time.perf_counter()
            jax.block_until_ready(run())
            took = time.process_time() - begun[0], time.perf_counter() - begun[1]
            if number:
                least[name] = (min(least[name][0], took[0]), min(least[name][1], took[1]))
    return least


def iterations(model: VAENMF, power: jax.Array, algorithm: Algorithm) -> Callable[[], Any]:
    """A few iterations without what surrounds them."""
    data = prepare(model, power)
    state = algorithm.begin(model, data, None, jax.random.key(0))
    constants, memory = algorithm.constants(model, state, data), algorithm.rule.begin(real_dtype(data))
    arguments = (algorithm, strong(model), strong(state), memory, data, constants, jnp.int32(_FEW))
    return lambda: run_chunk(*arguments)[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    speech = vbss.pretrained_speech()
    model, network = VAENMF.init(speech.decoder), CodeNetwork((speech.encoder,), ("codes_0",))
    algorithms = {name: algorithm_of(name, network, is_framewise=True) for name in ALGORITHMS}
    size = (_FILES, max(_FRAMES), speech.decoder.num_frequencies)
    powers = jnp.asarray(np.random.default_rng(0).exponential(size=size), jnp.float32)

    def fitted(algorithm: Algorithm, files: jax.Array) -> Any:
        return [vbss.fit(model, power, algorithm, max_steps=_STEPS).elbo for power in files]

    print("| algorithm | frames | CPU s per iteration | CPU s of 100 iterations per s of sound |\n|---|---|---|---|")
    for num_frames in _FRAMES:
        files = powers[:1, :num_frames]
        steps = seconds({n: iterations(model, files[0], a) for n, a in algorithms.items()}, rounds)
        whole = seconds({n: lambda a=a, f=files: fitted(a, f) for n, a in algorithms.items()}, 1)
        for name in algorithms:
            factor = whole[name][0] / _SECONDS
            print(f"| {name} | {num_frames} | {steps[name][0] / _FEW:.4f} | {factor:.2f} |", flush=True)

    print(f"\n| {_FILES} files, {_STEPS} iterations | CPU s one by one | at once | wall s one by one | at once |")
    print("|---|---|---|---|---|")
    files = powers[:, : min(_FRAMES)]
    for name in ("mcem", "vem"):
        algorithm = algorithms[name]
        took = seconds({
            "one by one": lambda a=algorithm: fitted(a, files),
            "at once": lambda a=algorithm: [s.elbo for s in vbss.fit_batch(model, files, a, max_steps=_STEPS)],
        }, max(1, rounds // 2))  # fmt: skip
        told = " | ".join(f"{took[way][clock]:.2f}" for clock in (0, 1) for way in ("one by one", "at once"))
        print(f"| {name} | {told} |", flush=True)


if __name__ == "__main__":
    if os.environ.get("XLA_FLAGS") != _ONE_THREAD:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "XLA_FLAGS": _ONE_THREAD})
    main()
