"""A process that runs one system and nothing else, so that its time and memory can be measured.

    python benchmarks/worker.py SYSTEM

Reads lines of JSON, {"scene": file, "estimate": file}, and answers each with a line of JSON: the `Measurement`. The
estimate is written with the names of `Estimate`.
"""

import importlib
import json
import sys
import time
from typing import NamedTuple

import numpy as np
from observation import Estimate, Observation, observe, separate_or_give_up
from systems import SYSTEMS, System

from vbss.scenes import Scene


class Measurement(NamedTuple):
    """What one separation cost.

    Attributes:
        cpu_seconds: of the process, in all threads; of the second call on the scene for a system that compiles.
        wall_seconds: likewise.
        first_cpu_seconds: of the first call on the scene.
        memory: by which the process has grown at most since its imports and its first scene, bytes.
        failed: the system gave up.
    """

    cpu_seconds: float
    wall_seconds: float
    first_cpu_seconds: float
    memory: int
    failed: bool


def forget_peak_memory() -> None:
    """Let the largest size of this process be its present one."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_memory() -> int:
    """Largest size of this process since it was forgotten, bytes.

    `ru_maxrss` would not do: it begins with the size of the parent process.
    """
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def measure(system: System, scene: Scene, baseline: int) -> tuple[Estimate, Measurement]:
    """Run `system` on a scene, once or twice; a process of `baseline` bytes is what it starts from."""

    def separate(observation: Observation) -> Estimate:
        return system.separate(scene if system.knows_truth else observation, **system.settings)

    seconds = []
    for _ in range(2 if system.compiles else 1):
        cpu, wall = time.process_time(), time.perf_counter()
        estimate, failed = separate_or_give_up(separate, observe(scene))
        seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    return estimate, Measurement(*seconds[-1], seconds[0][0], peak_memory() - baseline, failed)


def main() -> None:
    system = SYSTEMS[sys.argv[1]]
    for package in system.packages:
        importlib.import_module(package)
    baseline = None
    for line in sys.stdin:
        job = json.loads(line)
        with np.load(job["scene"]) as arrays:
            scene = Scene(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
        if baseline is None:
            forget_peak_memory()
            baseline = peak_memory()
        estimate, measurement = measure(system, scene, baseline)
        found = {name: array for name, array in estimate._asdict().items() if array is not None}
        np.savez(job["estimate"], **found)
        print(json.dumps(measurement._asdict()), flush=True)


if __name__ == "__main__":
    main()
