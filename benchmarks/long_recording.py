"""Long recordings: memory, time, whether sources stay who they are, and whether a run that was killed goes on exactly.

    python benchmarks/long_recording.py [--minutes 1 5 60] [--model cgmm+nmf] [--sample-rate 16000]

Two voices around 4 microphones, one minute in a simulated room that is repeated at changing levels, with sensor noise
40 dB below. Each length is separated in a process of its own; memory is the process's largest size, all imports and
compilation included. A second is swapped if the estimates resemble the voices in another order than in most seconds.
The first length is separated once more, in a process that is killed after its first block and started again; its
samples must be the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from worker import peak_memory

from vbss.scenes import demo_scene

_NOISE = 40.0  # dB


def write_recording(path: Path, minutes: int, sample_rate: int) -> Float[np.ndarray, "voices samples"]:
    """Write so many minutes; returns the voices of one of them, as microphone 0 hears them."""
    images = demo_scene(seconds=60.0, sample_rate=sample_rate).images
    rng, level = np.random.default_rng(0), np.sqrt(np.mean(np.square(images.sum(0))))
    with soundfile.SoundFile(path, "w", sample_rate, images.shape[1], "FLOAT") as file:
        for gain in gains(minutes):
            noise = 10 ** (-_NOISE / 20) * level * rng.standard_normal(images.shape[1:])
            file.write((gain * images.sum(0) + noise).T)
    return images[:, 0]


def gains(minutes: int) -> Float[np.ndarray, " minutes"]:
    """The level of each minute, within 6 dB."""
    return 10 ** (np.random.default_rng(1).uniform(-3, 3, minutes) / 20)


def swapped_seconds(folder: Path, voices: Float[np.ndarray, "voices samples"], minutes: int, sample_rate: int) -> int:
    """How many seconds of the estimates are in another order than most."""
    orders = []
    for minute in range(minutes):
        start = minute * voices.shape[1]
        estimates = [
            soundfile.read(folder / f"source_{k + 1}.wav", voices.shape[1], start)[0] for k in range(len(voices))
        ]
        for second in range(60):
            stretch = slice(second * sample_rate, (second + 1) * sample_rate)
            products = np.abs(np.stack(estimates)[:, stretch] @ voices[:, stretch].T)
            orders.append(np.trace(products) > np.trace(products[::-1]))
    return int(np.count_nonzero(np.array(orders) != np.median(orders)))


def separated(mix: Path, folder: Path, model: str, stop_after: int | None = None) -> dict[str, float] | None:
    """Separate a file in a process of its own; its largest size (bytes) and CPU seconds, None if it was killed."""
    folder.mkdir(exist_ok=True)
    line = [sys.executable, __file__, "--part", str(mix), str(folder), "--model", model]
    result = subprocess.run(line, env=os.environ | {"STOP_AFTER": str(stop_after)}, stdout=subprocess.PIPE, text=True)
    if stop_after is not None:
        assert result.returncode < 0, "the process should have been killed"
        return None
    return json.loads(result.stdout.splitlines()[-1])


def _part(mix: str, folder: str, model: str) -> None:
    """What the process does."""
    import signal

    from vbss.audio import read_microphone_positions
    from vbss.separation import separate_long

    stop_after = os.environ["STOP_AFTER"]

    def progress(done: int, blocks: int) -> None:
        print(f"{done} of {blocks} blocks", file=sys.stderr, flush=True)
        if str(done) == stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    # The array of the demo's scenes.
    separate_long(mix, read_microphone_positions("circular:4:0.08"), 2, folder, model=model, progress=progress)
    print(json.dumps({"memory": peak_memory(), "cpu": time.process_time()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--model", default="cgmm+nmf")
    parser.add_argument("--sample-rate", type=int, default=16000)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        _part(*arguments.part, arguments.model)
        return
    print("| minutes | memory, MB | CPU s | seconds swapped |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        for number, minutes in enumerate(arguments.minutes):
            mix, folder = Path(name) / "mix.wav", Path(name) / f"result_{minutes}"
            voices = write_recording(mix, minutes, arguments.sample_rate)
            cost = separated(mix, folder, arguments.model)
            assert cost is not None
            swapped = swapped_seconds(folder, voices, minutes, arguments.sample_rate)
            print(f"| {minutes} | {cost['memory'] / 2**20:.0f} | {cost['cpu']:.0f} | {swapped} |", flush=True)
            if number == 0:
                again = Path(name) / "killed"
                separated(mix, again, arguments.model, stop_after=1)
                separated(mix, again, arguments.model)
                sounds = [
                    np.stack([soundfile.read(path, dtype="float32")[0] for path in sorted(f.glob("*.wav"))])
                    for f in (folder, again)
                ]
                difference = np.abs(sounds[0] - sounds[1]).max()
                print(f"killed after one block and started again: samples differ by {difference} at most")


if __name__ == "__main__":
    main()
