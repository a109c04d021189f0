"""Quality and intelligibility of speech, as listeners would judge them."""

import warnings
from importlib import import_module
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float, Shaped

from vbss.audio.files import check_sample_rate
from vbss.errors import InputError

NARROWBAND_RATE, WIDEBAND_RATE = 8000, 16000  # Hz, the rates that PESQ is defined for
SHORTEST = 0.4  # s, what STOI looks at in one piece
LONGEST = 30.0  # s, of what PESQ is meant for; its package has a table of 50 utterances, and writes beyond it


class SpeechQuality(NamedTuple):
    """How good speech sounds, and how much of it is understood.

    Attributes:
        pesq_wideband: of ITU-T P.862.2, a mean opinion score from 1 to 4.64; nan at 8 kHz, where there is none.
        pesq_narrowband: of ITU-T P.862.1, of what a telephone lets through, from 1 to 4.55.
        stoi: short-time objective intelligibility, 1 at best; of noise alone near 0.
        estoi: the same, extended to noise that comes and goes.
    """

    pesq_wideband: float
    pesq_narrowband: float
    stoi: float
    estoi: float


def speech_quality(
    reference: Shaped[np.ndarray, "..."], estimate: Shaped[np.ndarray, "..."], sample_rate: int | np.integer
) -> SpeechQuality:
    """PESQ and STOI of enhanced or separated speech against the true speech.

    By the packages pesq and pystoi (`pip install "vbss[metrics]"`). PESQ is defined at 8 kHz, where it is narrow-band
    alone, and at 16 kHz: for it, sound at another rate is resampled to 16 kHz. STOI takes any rate, of which it hears
    what lies below 5 kHz. Levels do not matter. PESQ is meant for excerpts of 8 to 30 s: take some of longer sound.

    PESQ: Rix, Beerends, Hollier, Hekstra, Perceptual evaluation of speech quality, ICASSP 2001; STOI: Taal, Hendriks,
    Heusdens, Jensen, An algorithm for intelligibility prediction of time-frequency weighted noisy speech, IEEE TASLP
    2011; ESTOI: Jensen and Taal, An algorithm for predicting the intelligibility of speech masked by modulated noise
    maskers, IEEE TASLP 2016.

    Args:
        reference: true speech, `(samples,)`, with 0.4 s of sound at least, 30 s long at most.
        estimate: what is to be judged, `(samples,)`.
        sample_rate: Hz, 8000 or more.

    Raises:
        InputError: if shapes do not fit, samples are not finite, either is silent, there is too little speech, or the
            packages are not installed.
    """
    sample_rate = check_sample_rate(sample_rate)
    if sample_rate < NARROWBAND_RATE:
        raise InputError(f"sample_rate must be {NARROWBAND_RATE} Hz or more, got {sample_rate}.")
    reference, estimate = _checked(reference, estimate, sample_rate)
    try:
        pesq, pystoi = import_module("pesq"), import_module("pystoi")
    except ImportError as error:
        raise InputError('speech_quality needs pesq and pystoi: pip install "vbss[metrics]".') from error
    rate = NARROWBAND_RATE if sample_rate == NARROWBAND_RATE else WIDEBAND_RATE
    heard = [
        signal if rate == sample_rate else soxr.resample(signal, sample_rate, rate) for signal in (reference, estimate)
    ]
    try:
        narrowband = pesq.pesq(rate, *heard, "nb")
        wideband = np.nan if rate == NARROWBAND_RATE else pesq.pesq(rate, *heard, "wb")
    except pesq.NoUtterancesError as error:
        raise InputError("reference must hold speech: PESQ finds no utterance that estimate shares with it.") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            stoi, estoi = (
                pystoi.stoi(reference, estimate, sample_rate, extended=is_extended) for is_extended in (False, True)
            )
        except RuntimeWarning as error:
            raise InputError(
                f"reference must hold {SHORTEST} s of sound within 40 dB of its loudest, which is what STOI looks at."
            ) from error
    return SpeechQuality(float(wideband), float(narrowband), float(stoi), float(estoi))


def _checked(
    reference: Shaped[np.ndarray, "..."], estimate: Shaped[np.ndarray, "..."], sample_rate: int
) -> list[Float[np.ndarray, " samples"]]:
    """Both, with peak one: pystoi adds noise of a fixed level."""
    if np.ndim(reference) != 1 or np.shape(reference) != np.shape(estimate):
        raise InputError(
            f"reference and estimate must both have shape (samples,), got {np.shape(reference)} and "
            f"{np.shape(estimate)}."
        )
    if len(reference) < SHORTEST * sample_rate:
        raise InputError(f"reference must last {SHORTEST} s or more, got {len(reference)} samples at {sample_rate} Hz.")
    if len(reference) > LONGEST * sample_rate:
        raise InputError(f"reference must last {LONGEST} s or less, got {len(reference) / sample_rate:.1f} s.")
    signals = []
    for name, signal in (("reference", reference), ("estimate", estimate)):
        signal = np.asarray(signal, dtype=float)
        if not np.all(np.isfinite(signal)):
            raise InputError(f"{name} must be finite.")
        if not signal.any():
            raise InputError(f"{name} must not be silent: it is zero everywhere.")
        signals.append(signal / np.abs(signal).max())
    return signals
