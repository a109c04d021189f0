"""CPU seconds of start and iterations, and seconds of `vbss separate` with and without its cache.

    python benchmarks/separation_speed.py [--iterations 50] [--rounds 9]

One scene of 2 sources, 4 microphones, 5 s at 8 kHz. CPU seconds are of one thread on one core, float32, compiled
before, the bound of every iteration included, and medians over the rounds; the iterations are what `vbss.fit` takes
beyond no iteration at all. ssspy's cACGMM, if it is installed, runs on the same spectrogram. The command runs on all
cores, in processes of its own: first with an empty cache folder, then again, then on another file of the same size.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

_ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def _cpu_seconds(run: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):  # the first one compiles
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return float(np.median(times[1:]))


def _iterations(window: float, iterations: int, rounds: int) -> str:
    """CPU seconds of the start and of the iterations at one window, a quarter of it the hop."""
    import jax

    import vbss.separation
    from vbss.audio import Recording
    from vbss.inference import EM, fit
    from vbss.scenes import demo_scene

    scene = demo_scene(sample_rate=8000)
    recording = Recording(scene.mixture.astype(np.float32), 8000)
    given: dict[str, Any] = {}

    def remember(model, data, algorithm, **options):
        given.update(model=model, data=data)
        return fit(model, data, algorithm, **options)

    vbss.separation.fit = remember  # type: ignore[assignment]
    for _ in range(2):  # the second one compiles nothing
        localization = vbss.separation.localize(
            recording, scene.microphone_positions, 2, window=window, hop=window / 4, max_steps=1
        )
    model, data = given["model"], given["data"]

    def start():
        return jax.block_until_ready(model.start(jax.random.key(0), *data))

    def run(steps: int) -> Callable[[], Any]:
        return lambda: fit(model, data, EM(tolerance=0.0), start=found, max_steps=steps)

    found = start()
    seconds = _cpu_seconds(run(iterations), rounds) - _cpu_seconds(run(0), rounds)
    # A long window starts from a shorter one, which is a stage of its own.
    start_seconds = localization.seconds.get("start") or _cpu_seconds(start, rounds)
    frequencies, frames, _ = data[0].shape
    return (
        f"window {1000 * window:.0f} ms ({frequencies} x {frames} bins): "
        f"start {start_seconds:.3f} CPU s, {iterations} iterations {seconds:.3f} CPU s"
    )


def _cacgmm(iterations: int, rounds: int) -> str:
    """CPU seconds of ssspy's cACGMM at a window of 64 ms."""
    from scipy.signal import stft
    from ssspy.bss.cacgmm import CACGMM  # type: ignore[import-not-found]

    from vbss.scenes import demo_scene

    _, _, spectrogram = stft(demo_scene(sample_rate=8000).mixture, nperseg=512, noverlap=384)

    def run():
        CACGMM(n_sources=2, rng=np.random.default_rng(0), record_loss=False)(spectrogram, n_iter=iterations)

    return f"ssspy cACGMM, window 64 ms: {iterations} iterations {_cpu_seconds(run, min(rounds, 3)):.3f} CPU s"


def _command(folder: Path, file: str) -> float:
    script = "import sys; from vbss.cli import console; sys.exit(console())"
    line = [
        "separate",
        str(folder / file),
        "--sources",
        "2",
        "--array",
        "circular:4:0.08",
        "--out",
        str(folder / "out"),
    ]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, *line, "--quiet"], check=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--part", choices=["cpu"], help=argparse.SUPPRESS)  # what the process of one core runs
    arguments = parser.parse_args()
    if arguments.part == "cpu":
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        for window in (0.064, 0.128):
            print(_iterations(window, arguments.iterations, arguments.rounds), flush=True)
        if find_spec("ssspy") is not None:
            print(_cacgmm(arguments.iterations, arguments.rounds))
        return
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--part", "cpu"], check=True, env=os.environ | _ONE_THREAD)

    from vbss.scenes import demo_scene

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, seed in (("first.wav", 0), ("second.wav", 3)):
            soundfile.write(folder / file, demo_scene(seed, 8000).mixture.T, 8000, subtype="FLOAT")
        empty = _command(folder, "first.wav")
        filled = [_command(folder, "first.wav") for _ in range(arguments.rounds)]
        entries = len(list((folder / "compiled").glob("*-cache")))
        other = _command(folder, "second.wav")
        more = len(list((folder / "compiled").glob("*-cache"))) - entries
    print(f"vbss separate: {empty:.2f} s with an empty cache; then {np.median(filled):.2f} s", end=" ")
    print(
        f"({min(filled):.2f} to {max(filled):.2f}, {len(filled)} times); another file {other:.2f} s, {more} parts new"
    )


if __name__ == "__main__":
    main()
