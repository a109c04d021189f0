"""What the kernels of a separation must cost, and what they cost.

    python benchmarks/roofline.py [--rounds 21]

One scene of 2 sources and 4 microphones, 5 s at 8 kHz, with the default settings, float32, in one thread on one core.
What a kernel needs at least is in `kernel_needs.py` and in `kernels`. Its floor is the time of its operations at the
speed of a matrix product, or of its bytes at that of a sum of long arrays, whichever is longer; both speeds are
measured here. Times are of the processor, of what is compiled, medians over the rounds. The table is markdown.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from math import log2
from typing import Any, NamedTuple

import numpy as np
from kernel_needs import (
    FUNCTION,
    Sizes,
    fast_mnmf_needs,
    inverse_flops,
    inverse_wishart_needs,
    mixture_needs,
    sum_model_needs,
)

_ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
ITERATIONS = 10  # in one compiled loop


class Kernel(NamedTuple):
    """A kernel: what is run, on what, and what it needs at least; `repeats` of it are in one call."""

    name: str
    run: Callable[..., Any]
    arguments: tuple
    flops: float
    bytes: float
    repeats: int = 1


def compiled(function: Callable[..., Any], arguments: tuple) -> tuple[Callable[[], Any], int]:
    """A call of the compiled function, and the bytes that it needs beside arguments and results."""
    import equinox as eqx
    import jax

    from vbss.compilation import batches_without_lapack

    arrays, static = eqx.partition(arguments, eqx.is_array)

    def of_arrays(arrays: Any) -> Any:
        return eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array)

    result = jax.jit(batches_without_lapack(of_arrays)).lower(arrays).compile()
    return lambda: jax.block_until_ready(result(arrays)), result.memory_analysis().temp_size_in_bytes


def cpu_seconds(run: Callable[[], Any], rounds: int, quantile: float = 0.5) -> float:
    """Of one call, the median over rounds of 20 ms or more, or another quantile."""
    times: list[float] = []
    run()
    begin = time.process_time()
    run()
    calls = max(1, round(0.02 / max(time.process_time() - begin, 1e-6)))
    for _ in range(rounds):
        begin = time.process_time()
        for _ in range(calls):
            run()
        times.append((time.process_time() - begin) / calls)
    return float(np.quantile(times, quantile))


def peaks(rounds: int) -> tuple[float, float]:
    """Operations and bytes a second at best: of a large matrix product by JAX, and of c = a + b beyond caches."""
    import jax.numpy as jnp

    side, length = 2048, 2**27
    matrix = jnp.ones((side, side))
    product, _ = compiled(jnp.matmul, (matrix, matrix))
    a, b, c = (np.full(length, value, np.float32) for value in range(3))
    add = cpu_seconds(lambda: np.add(a, b, c), rounds, 0)
    return 2 * side**3 / cpu_seconds(product, rounds, 0), 3 * 4 * length / add


def loop(model: Any, data: tuple, start: dict, iterations: int = ITERATIONS) -> tuple[Callable[..., Any], tuple]:
    """Iterations with the bound in one compiled loop, as `vbss.fit` runs them."""
    import jax
    from derived_updates import by_engine

    step, state, inputs = by_engine(model, data, "auto", start)
    return lambda s, d: jax.lax.scan(lambda s, _: step(s, d), s, length=iterations), (state, inputs)


def kernels() -> list[Kernel]:
    """All kernels of the default separation, with the data that they get there."""
    import jax
    import jax.numpy as jnp

    import vbss
    from vbss.audio import STFT, diffuse, geometry
    from vbss.audio.filters import normalize_bins
    from vbss.factorization import initial_posterior
    from vbss.hermitian import inverse_and_log_determinant
    from vbss.models import LDACGMM, FastMNMF, InverseWishartMixture, LocalGaussianNMF, cgmm_start
    from vbss.models import local_gaussian_nmf_closed_forms as sum_forms
    from vbss.scenes import demo_scene

    settings, scene, key = vbss.Settings(), demo_scene(sample_rate=8000), jax.random.key(0)
    samples = jnp.asarray(scene.mixture, jnp.float32)
    positions, azimuths = scene.microphone_positions, jnp.asarray(geometry.azimuth_grid(settings.num_directions))

    def analysed(stft: Any, kind: type = LDACGMM) -> tuple[Any, Any, Any, tuple]:
        mixture = jnp.moveaxis(stft.forward(samples), 0, -1)
        whitening = diffuse.diffuse_whitening(positions, stft.frequencies)
        steering = geometry.steering_vectors(jnp.asarray(positions, jnp.float32), azimuths, stft.frequencies)
        model = kind.init(diffuse.whitened(whitening, steering), 2, loading=settings.loading)
        white = diffuse.whitened(whitening, jnp.swapaxes(mixture, 0, 1))
        is_observed = jnp.broadcast_to(diffuse.active_frames(mixture)[None], white.shape[:2])
        return mixture, whitening, model, (normalize_bins(white), is_observed)

    stft = settings.stft(8000, samples.shape[1])
    mixture, whitening, model, data = analysed(stft)
    s = Sizes(len(whitening), len(mixture), window=stft.window_length)
    m, classes, bins = s.microphones, s.sources + 1, 4.0 * s.bins
    *_, short_model, short_data = analysed(STFT.init(8000, 0.064, 0.016))
    # The start takes every second frame where there are more bins than this.
    start_bins = short_data[1].size // (2 if short_data[1].size > cgmm_start._HISTOGRAM_BINS else 1)
    start_templates = short_model.templates
    start = cgmm_start.given_directions(model, data[0], cgmm_start.peak_directions(short_model, *short_data), data[1])
    iw_model = analysed(stft, InverseWishartMixture)[2]
    masks = vbss.fit(model, data, start=start, max_steps=settings.max_steps).posterior["source"].probs

    white = diffuse.whitened(whitening, jnp.swapaxes(mixture / jnp.abs(mixture).max(), 0, 1))
    sum_model = LocalGaussianNMF.init(2, settings.num_components, loading=settings.loading)
    sum_start = sum_model.given_masks(white, masks, key=key)
    fast_model = FastMNMF.init(2, settings.num_components, loading=settings.loading)
    fast_start = fast_model.given_masks(white, masks, key=key)
    posterior = initial_posterior(sum_model, (white,), key, sum_start)
    scatters = jnp.einsum("fkp,kfn->fnp", posterior.points["spatial_covariance"], jnp.ones((classes, *white.shape[:2])))
    channel = jnp.linalg.inv(whitening)[:, 0].astype(white.dtype)
    images = sum_model.images(posterior, white, channel)
    spectrograms = jnp.swapaxes(images, 1, 2)

    def wiener(*arguments: Any) -> Any:
        return sum_model.images(*arguments), sum_model.image_variances(*arguments)

    def inverse(spectrograms: Any) -> Any:
        return stft.inverse(spectrograms, samples.shape[1])

    fourier = s.frames * (2.5 * s.window * log2(s.window) + 2 * s.window)
    sum_needs = sum_model_needs(s)
    per_start = 2 * s.packed + 2 * FUNCTION + 4
    shared = sum_needs["bound"][0] / s.bins
    listed = [
        Kernel("transform", stft.forward, (samples,), m * fourier, 4.0 * samples.size + 2 * m * bins),
        Kernel(
            "whitening, normalisation",
            lambda w, x: normalize_bins(diffuse.whitened(w, jnp.swapaxes(x, 0, 1))),
            (whitening, mixture),
            s.bins * (4 * m * m + 6 * m),
            4 * m * bins,
        ),
        Kernel(
            "directions' histogram, 20 steps",
            cgmm_start.peak_directions,
            (short_model, *short_data),
            20 * start_bins * s.directions * per_start + 2 * s.directions * start_templates.size,
            8.0 * short_data[0].size + 4 * start_templates.size,
        ),
        Kernel("mixture model", *loop(model, data, start), *mixture_needs(s), ITERATIONS),
        Kernel("inverse-Wishart mixture", *loop(iw_model, data, start), *inverse_wishart_needs(s), ITERATIONS),
        Kernel(
            "sum model: start, 50 steps of NMF",
            lambda x, z: sum_model.given_masks(x, z, key=key),
            (white, masks),
            50 * 2 * s.bins * (s.sources * (6 * s.components + 5) + 11),  # the noise has one component
            (2 * m + s.sources) * bins,
        ),
    ]
    for name in ("spectra", "activations", "spatial_covariance", "bound"):
        update = sum_forms.CLOSED_FORMS["elbo" if name == "bound" else name]
        run = lambda p, x, update=update: update(sum_model, p, (x,), {})  # noqa: E731
        listed.append(Kernel(f"sum model: {name}", run, (posterior, white), *sum_needs[name]))
    return [
        *listed,
        Kernel("sum model: together", *loop(sum_model, (white,), sum_start), *sum_needs["together"], ITERATIONS),
        Kernel("FastMNMF", *loop(fast_model, (white,), fast_start), *fast_mnmf_needs(s), ITERATIONS),
        Kernel(
            "packed inverse, log determinant",
            inverse_and_log_determinant,
            (scatters,),
            s.bins * inverse_flops(m),
            bins * (2 * s.packed + 1),
        ),
        Kernel(
            "Wiener images, variances",
            wiener,
            (posterior, white, channel),
            s.bins * (shared + s.sources * (8 * m + 2 * s.packed + 8)),
            bins * (2 * m + 3 * s.sources),
        ),
        Kernel(
            "inverse transform",
            inverse,
            (spectrograms,),
            s.sources * fourier,
            2 * s.sources * bins + 4 * s.sources * samples.shape[1],
        ),
    ]


def separation() -> Callable[[], Any]:
    """The whole default separation of the scene."""
    import vbss
    from vbss.audio import Recording
    from vbss.scenes import demo_scene

    scene = demo_scene(sample_rate=8000)
    recording = Recording(scene.mixture.astype(np.float32), 8000)
    return lambda: vbss.separate(recording, scene.microphone_positions, 2)


def report_kernels(rounds: int) -> None:
    """The table of kernels, and the seconds of 50 iterations of the mixture model and of a whole separation."""
    peak, bandwidth = peaks(min(rounds, 7))
    fifty = float("nan")
    print(f"Peak: {peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s.\n")
    print("| kernel | MFLOP | MB at least | floor, ms | measured, ms | measured / floor | temporary MiB |")
    print("|---|---|---|---|---|---|---|")
    for kernel in kernels():
        run, temporary = compiled(kernel.run, kernel.arguments)
        of_flops, of_bytes = kernel.flops / peak * 1e3, kernel.bytes / bandwidth * 1e3
        measured, floor = 1e3 * cpu_seconds(run, rounds) / kernel.repeats, max(of_flops, of_bytes)
        limit = "operations" if of_flops > of_bytes else "bytes"
        print(
            f"| {kernel.name} | {kernel.flops / 1e6:.1f} | {kernel.bytes / 1e6:.1f} | {floor:.2f} "
            f"({limit}) | {measured:.2f} | {measured / floor:.1f} | {temporary / 2**20:.1f} |",
            flush=True,
        )
        if kernel.name == "mixture model":
            fifty = 50e-3 * measured
    print(f"\n50 iterations of the mixture model: {fifty:.2f} CPU s.")
    print(f"vbss.separate, compiled: {cpu_seconds(separation(), min(rounds, 7)):.2f} CPU s.")


def in_one_thread(arguments: list[str], **environment: str) -> None:
    """Run a script of this folder in a process of its own, in one thread on one core."""
    line = [sys.executable, *arguments, "--pinned"]
    subprocess.run(line, check=True, env=os.environ | _ONE_THREAD | environment)


def pin() -> None:
    """Keep this process on the first core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--pinned", action="store_true", help=argparse.SUPPRESS)  # what the process of one core runs
    arguments = parser.parse_args()
    if not arguments.pinned:
        return in_one_thread([__file__, "--rounds", str(arguments.rounds)])
    pin()
    report_kernels(arguments.rounds)


if __name__ == "__main__":
    main()
