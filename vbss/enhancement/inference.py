"""Speech out of noise, and voices out of each other, by models of what they may be and any algorithm."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vbss.audio import STFT, Recording
from vbss.audio.faults import alone_warnings
from vbss.enhancement.algorithms import ALGORITHMS, algorithm_of
from vbss.enhancement.results import KnownSources
from vbss.enhancement.trained import TrainedSpeech, check_finite
from vbss.errors import InputError, one_of, whole_number
from vbss.inference import Solution, Status, fit
from vbss.models import VAENMF
from vbss.models.vae_nmf import steady_noise
from vbss.networks.codes import CodeNetwork
from vbss.networks.informed_coder import InformedDecoder, InformedEncoder
from vbss.networks.spectral_coder import FrameDecoder
from vbss.neural.rates import as_recorded, at_rate_of, band_warnings
from vbss.pipeline import Progress
from vbss.separation.clock import Clock
from vbss.separation.doubts import failures, poor_sources

MAX_STEPS, MAX_VOICE_STEPS = 100, 30
_BLOCK, _OVERLAP = 30.0, 2.0  # s, of a long recording
_WIDTH = 2.0  # of the prior of a speaker's codes, relative to what an encoder says
_POINTS = ("spectra", "activations")  # of `VAENMF`: how loud speakers are their codes say
_FLOOR = 1e-8  # of powers, whose mean is 1: as little as recordings of 16 bits resolve


def enhance(
    recording: Recording,
    trained: TrainedSpeech,
    *,
    algorithm: str = "langevin",
    num_noise_spectra: int = 8,
    max_steps: int = MAX_STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> KnownSources:
    """Take the speech out of a noisy recording of one microphone, or of each channel by itself.

    Nothing of the noise is learnt beforehand: its spectra, few and of any loudness at any time, are inferred together
    with the speech (`vbss.models.VAENMF`). Steady noise suits them, other voices do not. Longer recordings than 30 s
    are taken in blocks, each with noise of its own.

    Args:
        recording: at the network's sample rate or above. Constant offsets of channels are removed.
        trained: what speech may be: a file made by `vbss train --model vae` is read by `vbss.load`.
        algorithm: one of `ALGORITHMS`: "langevin" (parallel chains), "mcem" (Metropolis), "mala", "vem" (an encoder
            that is tuned to the recording), "encoder" (as it is), "frozen" (as it is, reading again what the model
            takes for speech: some voices go into the noise so, and the expected SDR does not tell), or "point".
        num_noise_spectra: K of the model.
        max_steps: iterations.
        seed: of all that is random.
        progress: as of `vbss.fit`, for every block.

    Raises:
        InputError: if the recording is at a lower rate than the network's, shorter than a window or constant, or an
            argument is out of its range.
        KeyboardInterrupt: if the inference is interrupted.
    """
    num_noise_spectra = whole_number("num_noise_spectra", num_noise_spectra, 1)

    def problem(power: Array, key: Array) -> _Problem:
        return _of_noise(trained, num_noise_spectra, power, key)

    return _inferred(recording, (trained,), problem, algorithm, (), max_steps, seed, progress)


def separate_voices(
    recording: Recording,
    trained: Sequence[TrainedSpeech],
    *,
    algorithm: str = "langevin",
    max_steps: int = MAX_VOICE_STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> KnownSources:
    """Separate speakers heard by one microphone whose voices are known, each by a network trained on the speaker.

    The encoders, taught on mixtures (`vbss.train_speaker`), say roughly what each speaker's codes are. About that their
    prior is here, twice as wide, in the place of N(0, I), and inference weighs it against what the mixture, the sum of
    the speakers, says of all of them together. As the encoders have heard the mixture, too, the bound is none of the
    evidence, and the expected SDR is rather too high. How loud the speakers are their codes say, no gains.

    Args:
        recording, algorithm, seed, progress: as for `enhance`; "encoder" takes what the encoders say as it is,
            and "frozen" is for speech in noise alone.
        trained: of each speaker, all with the same transform; sources are in this order.
        max_steps: iterations.

    Raises:
        InputError: as `enhance`, or if there are fewer than two networks, two are the same, or of different transforms.
    """
    if not isinstance(trained, Sequence) or len(trained) < 2:
        raise InputError("trained must be two networks at least")
    for place, speech in enumerate(trained):
        if any(bool(eqx.tree_equal(speech, other)) for other in trained[:place]):
            raise InputError("trained must be of different speakers, here are two networks that are the same")

    def problem(power: Array, key: Array) -> _Problem:
        return _of_voices(tuple(trained), power)

    max_steps = whole_number("max_steps", max_steps, 1)
    if algorithm == "frozen":
        raise InputError("algorithm 'frozen' is for one source in noise, not for several voices")
    if algorithm == "encoder":
        max_steps = 1  # nothing moves
    return _inferred(recording, tuple(trained), problem, algorithm, _POINTS, max_steps, seed, progress)


class _Problem(NamedTuple):
    """A model of what was heard, a network that says q of its codes, and where inference begins."""

    model: VAENMF
    network: CodeNetwork
    start: dict[str, Array]


@eqx.filter_jit
def _of_noise(trained: TrainedSpeech, num_noise_spectra: int, power: Float[Array, "n f"], key: Array) -> _Problem:
    """Speech in noise; codes begin as the encoder reads them from the mixture without what is steady in it."""
    model = VAENMF.init(trained.decoder, num_noise_spectra)
    network = CodeNetwork((trained.encoder,), ("codes_0",), steady_noise(power))
    start = dict(model.start(key, power)) | {name: mean for name, (mean, _) in network(power).items()}
    return _Problem(model, network, start)


@eqx.filter_jit
def _of_voices(trained: tuple[TrainedSpeech, ...], power: Float[Array, "n f"]) -> _Problem:
    """Speakers whose codes' prior, twice as wide as the encoders' q, is about that."""
    informed = [_informed(speech, power) for speech in trained]
    model = VAENMF.init([speech.decoder for speech in informed], 0)
    names = tuple(f"codes_{number}" for number in range(len(informed)))
    network = CodeNetwork(tuple(speech.encoder for speech in informed), names)
    return _Problem(model, network, dict(model.start(jax.random.key(0), power)))


def _informed(speech: TrainedSpeech, power: Float[Array, "n f"]) -> TrainedSpeech:
    mean, log_variance = speech.encoder(power)
    scale = _WIDTH * jnp.exp(log_variance / 2)
    decoder = InformedDecoder(speech.decoder, mean, scale)
    return TrainedSpeech(InformedEncoder(speech.encoder, mean, scale), decoder, speech.stft)


def _inferred(
    recording: Any,
    trained: tuple[Any, ...],
    problem: Callable[[Array, Array], _Problem],
    algorithm: str,
    frozen: tuple[str, ...],
    max_steps: int,
    seed: int,
    progress: Progress | None,
) -> KnownSources:
    one_of("algorithm", algorithm, ALGORITHMS)
    whole_number("max_steps", max_steps, 1)
    whole_number("seed", seed, 0, 2**32 - 1)
    if not isinstance(recording, Recording):
        raise InputError(f"recording must be a vbss.audio.Recording, got {type(recording).__name__}.")
    for speech in trained:
        _check_trained(speech)
        if speech.stft != trained[0].stft:
            raise InputError(f"trained must have one transform, got {trained[0].stft} and {speech.stft}")
    clock, stft = Clock({}), trained[0].stft
    is_framewise = all(isinstance(speech.decoder, FrameDecoder) for speech in trained)
    inference = partial(algorithm_of, algorithm, is_framewise=is_framewise, frozen=frozen)
    samples = at_rate_of(recording, stft)
    found, noises, energies, solutions = [], [], [], []
    for channel, sound in enumerate(samples):
        peak = np.abs(sound).max() or 1  # of a silent channel nothing is scaled
        key = jax.random.fold_in(jax.random.key(seed), channel)
        heard, variances, ends = _of_channel(
            sound / peak, len(trained), stft, problem, inference, max_steps, key, progress
        )
        found.append(peak * heard)
        noises.append(sound - peak * heard.sum(0))
        energies.append(variances)
        solutions.append(ends)
    clock("inference", found)
    sources = np.stack([as_recorded(channel, stft.sample_rate, recording) for channel in found], 1)
    expected_sdr = np.stack(energies, 1)
    has_sound = [bool(ends) for ends in solutions]
    faults = alone_warnings(recording.samples, recording.sample_rate)
    doubts = {sentence for ends in solutions for solution in ends for sentence in failures(solution)}
    poor = poor_sources(expected_sdr[:, has_sound].mean(1) if any(has_sound) else [])
    return KnownSources(
        sources=sources,
        noise=as_recorded(np.stack(noises), stft.sample_rate, recording),
        sample_rate=recording.sample_rate,
        expected_sdr=expected_sdr,
        algorithm=algorithm,
        stft=stft,
        solutions=tuple(solutions),
        warnings=(*band_warnings(recording, stft), *faults, *sorted(doubts), *poor),
        seconds=clock.seconds,
    )


def _check_trained(speech: Any) -> None:
    if not isinstance(speech, TrainedSpeech):
        raise InputError(
            f"trained must be a TrainedSpeech, as vbss train --model vae makes it, got {type(speech).__name__}"
        )
    check_finite(speech)


def _of_channel(
    sound: Float[np.ndarray, " samples"],
    num_sources: int,
    stft: STFT,
    problem: Callable[[Array, Array], _Problem],
    inference: Callable[..., Any],
    max_steps: int,
    key: Array,
    progress: Progress | None,
) -> tuple[Float[np.ndarray, "j samples"], Float[np.ndarray, " j"], tuple[Solution, ...]]:
    """The sources' sounds, their expected SDR in dB, and how the inference of each block ended."""
    num_samples = len(sound)
    length = min(num_samples, round(_BLOCK * stft.sample_rate))
    hop = length - round(_OVERLAP * stft.sample_rate)
    # All blocks have one length, so that one program serves them; the last begins earlier.
    begins = [0] if length == num_samples else [*range(0, num_samples - length, hop), num_samples - length]
    fade = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)
    weight = np.zeros(num_samples, np.float32)
    total = np.zeros((num_sources, num_samples), np.float32)
    energies, solutions = np.zeros((2, num_sources)), []
    for number, begin in enumerate(begins):
        if not sound[begin : begin + length].any():  # nothing to infer, and silence it is
            weight[begin : begin + length] += fade
            continue
        key_start, key_fit, key_draws = jax.random.split(jax.random.fold_in(key, number), 3)
        mixture, power, level = _analysed(stft, jnp.asarray(sound[begin : begin + length], jnp.float32))
        model, network, start = problem(power, key_start)
        algorithm = inference(network=network)
        solution = fit(model, power, algorithm, key=key_fit, start=start, max_steps=max_steps, progress=progress)
        if solution.status is Status.interrupted:
            raise KeyboardInterrupt
        means, variances = model.sources(solution.posterior, mixture, key_draws)
        heard = np.asarray(stft.inverse(means * jnp.sqrt(level).astype(means.dtype), length))
        total[:, begin : begin + length] += fade * heard
        weight[begin : begin + length] += fade
        energies += np.asarray(level) * np.stack(
            [np.sum(np.abs(means) ** 2, (1, 2), dtype=float), np.sum(variances, (1, 2), dtype=float)]
        )
        solutions.append(solution)
    expected = energies.sum(0) / np.maximum(energies[1], np.finfo(float).tiny)
    return total / weight, 10 * np.log10(np.maximum(expected, 1e-12)), tuple(solutions)


@eqx.filter_jit
def _analysed(
    stft: STFT, samples: Float[Array, " samples"]
) -> tuple[Complex[Array, "n f"], Float[Array, "n f"], Float[Array, ""]]:
    """The spectrum at a mean power of 1, its powers, and what the mean power was.

    Of a digital silence the most likely variance is zero and the likelihood infinite, so no power is below a floor.
    """
    spectrum = stft.forward(samples)
    power = spectrum.real**2 + spectrum.imag**2
    level = power.mean()
    level = jnp.where(level > 0, level, 1)
    return spectrum / jnp.sqrt(level).astype(spectrum.dtype), jnp.maximum(power / level, _FLOOR), level
