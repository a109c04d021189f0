"""What binaural inference costs: presets per second of sound, and iterations as they grow; compiled, one thread.

    python benchmarks/binaural_speed.py [--rounds 5]

Two speech-like voices around a head of formulas, 2.5 s at 16 kHz (512 frequencies, 157 frames), float32. CPU time, the
least of the rounds: other programs only add to it. The exponent is that of the power of size by which the last two
sizes differ.
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
from vbss.audio import InterauralCues, noise_power, observed_bins
from vbss.binaural.vessl import BEST, PAPER, infer_vessl
from vbss.inference.loop import real_dtype, run_chunk, strong
from vbss.models import MESSL, PPAM
from vbss.models.messl_closed_forms import em_step
from vbss.scenes import HIGH_VOICE, LOW_VOICE, speech_like, structural_head
from vbss.scenes.room import convolve

_RATE = 16000
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_STEPS = 5


def scene(num_sources: int, seconds: float) -> np.ndarray:
    """Ear signals of so many voices with some noise, (2, samples)."""
    azimuths, elevations = np.radians(np.linspace(60, -60, num_sources)), np.radians(np.linspace(-10, 20, num_sources))
    responses = structural_head(azimuths, elevations, _RATE).responses
    voices = [speech_like((LOW_VOICE, HIGH_VOICE)[i % 2], seconds, _RATE, seed=i) for i in range(num_sources)]
    images = np.concatenate([convolve(v[None], r[None]) for v, r in zip(voices, responses, strict=True)])
    mixture = images.sum(0)
    level = np.sqrt(np.mean(mixture**2)) * 10 ** (-40 / 20)
    return (mixture + level * np.random.default_rng(0).standard_normal(mixture.shape)).astype(np.float32)


def cpu_seconds(run: Callable[[], Any], rounds: int) -> float:
    """The least of some rounds, after one that compiles."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        jax.block_until_ready(run())
        seconds.append(time.process_time() - start)
    return min(seconds)


def iteration(model: Any, data: tuple, start: dict[str, Any], rounds: int) -> float:
    """CPU milliseconds of one iteration of EM with its bound."""
    algorithm = vbss.EM(0.0)
    state = algorithm.begin(model, data, start, jax.random.key(0))
    constants, memory = algorithm.constants(model, state, data), algorithm.rule.begin(real_dtype(data))
    arguments = (algorithm, strong(model), strong(state), memory, data, constants, jnp.int32(_STEPS))
    return 1000 * cpu_seconds(lambda: run_chunk(*arguments)[1:], rounds) / _STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    grid = np.meshgrid(np.radians(np.arange(-80, 81, 6.0)), np.radians(np.arange(-40, 61, 6.0)), indexing="ij")
    head = structural_head(*(angles.ravel() for angles in grid), _RATE)
    cues = {name: InterauralCues(phase=name == "level and phase") for name in ("level and phase", "level")}
    pieces = [1, 2, 4, 8, 16, 32, 64]
    heads = {name: vbss.calibrate(head, setting, num_pieces=pieces, seconds=0.5) for name, setting in cues.items()}

    def analysed(name: str, mixture: np.ndarray) -> tuple[jax.Array, jax.Array]:
        spectrogram = cues[name].analyse(mixture)
        return cues[name].cues(spectrogram), observed_bins(spectrogram, noise_power(spectrogram))

    print("| preset | cues | sources | CPU s per s of sound |\n|---|---|---|---|")
    for preset, settings in (("best", BEST), ("paper", PAPER)):
        for name in cues:
            for num_sources in (1, 2, 3):
                data = analysed(name, scene(num_sources, 2.5))
                seconds = cpu_seconds(lambda d=data, n=name, m=num_sources, s=settings: infer_vessl(
                    heads[n], *d, m, s).elbo, max(1, rounds // 2))  # fmt: skip
                print(f"| {preset} | {name} | {num_sources} | {seconds / 2.5:.3f} |", flush=True)

    print("\n| iteration of | grows | sizes | ms | exponent |\n|---|---|---|---|---|")

    def row(what: str, grows: str, sizes: list[int], costs: list[float]) -> None:
        exponent = np.log(costs[-1] / costs[-2]) / np.log(sizes[-1] / sizes[-2])
        told = ", ".join(f"{cost:.2f}" for cost in costs)
        print(f"| {what} | {grows} | {', '.join(map(str, sizes))} | {told} | {exponent:.2f} |", flush=True)

    def vessl(num_sources: int, seconds: float, num_pieces: int) -> float:
        from vbss.binaural.vessl import vessl_model

        calibration = heads["level and phase"]
        ppam = calibration.maps[pieces.index(num_pieces)]
        data = analysed("level and phase", scene(num_sources, seconds))
        model = vessl_model(calibration, *data, num_sources, BEST, ppam)
        return iteration(model, data, model.given_pieces(*data, jnp.arange(num_sources) % num_pieces), rounds)

    row("VESSL", "frames", [157, 313, 626], [vessl(2, s, 64) for s in (2.5, 5.0, 10.0)])
    row("VESSL", "sources", [1, 2, 4], [vessl(m, 2.5, 64) for m in (1, 2, 4)])
    row("VESSL", "pieces", [16, 32, 64], [vessl(2, 2.5, k) for k in (16, 32, 64)])

    def messl(num_sources: int, seconds: float) -> float:
        left, right = cues["level"].analyse(scene(num_sources, seconds))
        data = (jnp.angle(left * right.conj()).T, cues["level"].cues(jnp.stack([left, right]))[0])
        model = MESSL.init(np.asarray(cues["level"].frequencies), num_sources, has_garbage=True)
        points = {name: jnp.asarray(v, jnp.float32) for name, v in model.start(jax.random.key(0), *data).items()}
        step = jax.jit(lambda p, d: em_step(strong(model), p, d))
        return 1000 * cpu_seconds(lambda: step(points, data), rounds)

    row("MESSL-G", "frames", [157, 313, 626], [messl(2, s) for s in (2.5, 5.0, 10.0)])
    row("MESSL-G", "sources", [1, 2, 4], [messl(m, 2.5) for m in (1, 2, 4)])

    def ppam(num: int, num_pieces: int, size: int = 512) -> float:
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, (num, 2)).astype(np.float32)
        y = (5 * np.sin(2 * x @ rng.normal(size=(2, size))) + 0.3 * rng.normal(size=(num, size))).astype(np.float32)
        probs = np.full((num, num_pieces), 0.02 / num_pieces, np.float32)
        probs[np.arange(num), rng.integers(num_pieces, size=num)] += 0.98
        data = (jnp.asarray(x), jnp.asarray(y))
        return iteration(PPAM.init(*data, num_pieces), data, {"piece": jnp.asarray(probs)}, rounds)

    row("PPAM, 512 cues", "directions (128 pieces)", [2400, 4800, 9600], [ppam(n, 128) for n in (2400, 4800, 9600)])
    row("PPAM, 512 cues", "pieces (4800 directions)", [32, 64, 128], [ppam(4800, k) for k in (32, 64, 128)])


if __name__ == "__main__":
    if os.environ.get("XLA_FLAGS") != _ONE_THREAD:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "XLA_FLAGS": _ONE_THREAD})
    main()
