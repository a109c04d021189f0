"""How the cost of an iteration grows with the size of a recording, and what memory a separation takes.

    python benchmarks/growth.py [--rounds 11] [--only memory]

In one thread on one core, float32. `scaling`: processor milliseconds of an iteration with its bound for more frames,
frequencies and classes, medians over the rounds, and the exponent of the growth (the slope of the logarithms).
`memory`: megabytes of the process after each import and each `vbss.separate` of one scene (2 sources, 4 microphones,
5 s at 8 kHz), and at most during it: with an empty cache of compiled programs, then with the one that this filled.
"""

import argparse
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from kernel_needs import Sizes
from roofline import ITERATIONS, compiled, cpu_seconds, in_one_thread, loop, pin, separation


def report_scaling(rounds: int) -> None:
    """The table of growth."""
    import jax

    from vbss.models import LDACGMM, LocalGaussianNMF

    def milliseconds(name: str, s: Sizes) -> float:
        keys = jax.random.split(jax.random.key(0), 4)
        noise = jax.random.normal(keys[0], (s.frequencies, s.frames, s.microphones), "complex64")
        x = noise * jax.random.gamma(keys[1], 0.3, (s.frequencies, s.frames, 1))
        steering = jax.random.normal(keys[2], (s.frequencies, s.directions, s.microphones), "complex64")
        mixture = name == "mixture model"
        model = LDACGMM.init(steering, s.sources) if mixture else LocalGaussianNMF.init(s.sources)
        run, _ = compiled(*loop(model, (x,), dict(model.start(keys[3], x))))
        return 1e3 * cpu_seconds(run, rounds) / ITERATIONS

    base = Sizes(257, 158)
    grown = {
        "frames": [base._replace(frames=factor * base.frames) for factor in (1, 2, 4)],
        "frequencies": [base._replace(frequencies=factor * base.frequencies) for factor in (1, 2, 4)],
    }
    print("| iteration of | grows | from, to | ms | exponent |\n|---|---|---|---|---|")
    for name in ("mixture model", "sum model"):
        noise = name == "sum model"  # one class is the noise
        classes = {"classes": [base._replace(sources=number - noise) for number in (2, 3, 4, 6)]}
        for axis, sizes in {**grown, **classes}.items():
            times = [milliseconds(name, s) for s in sizes]
            values = [s.sources + noise if axis == "classes" else getattr(s, axis) for s in sizes]
            exponent = np.polyfit(np.log(values), np.log(times), 1)[0]
            listed = ", ".join(f"{value:.2f}" for value in times)
            print(f"| {name} | {axis} | {', '.join(map(str, values))} | {listed} | {exponent:.2f} |", flush=True)


def size_now(line: str = "VmRSS") -> float:
    """MB of this process, or at most so far (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    return next(1.024e-3 * int(found.split()[1]) for found in status.splitlines() if found.startswith(line))


def report_memory(cache: str) -> None:
    """One row for each import and call: what the process holds after it, and at most during it."""
    steps: dict[str, Callable[[], Any]] = {
        f"import {name}": lambda name=name: import_module(name)
        for name in ("numpy", "jax", "numpyro", "vbss.separation", "vbss.scenes")
    }
    calls: list[Callable[[], Any]] = []
    steps["the scene"] = lambda: calls.append(separation())
    steps["first call"] = lambda: calls[0]()
    steps["second call"] = lambda: calls[0]()
    print(f"\n| cache {cache} | MB after | MB at most |\n|---|---|---|")
    for name, step in steps.items():
        Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is forgotten
        step()
        print(f"| {name} | {size_now():.0f} | {size_now('VmHWM'):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", choices=("scaling", "memory"))
    parser.add_argument("--cache", help=argparse.SUPPRESS)  # how the process of one core calls it
    parser.add_argument("--pinned", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pinned:
        pin()
        return report_scaling(arguments.rounds) if arguments.only == "scaling" else report_memory(arguments.cache)
    if arguments.only != "memory":
        in_one_thread([__file__, "--rounds", str(arguments.rounds), "--only", "scaling"])
    if arguments.only != "scaling":
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("empty", "filled"):
                in_one_thread([__file__, "--only", "memory", "--cache", cache], JAX_COMPILATION_CACHE_DIR=folder)


if __name__ == "__main__":
    main()
