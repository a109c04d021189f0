"""Quality of separated sources against the true ones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.optimize import linear_sum_assignment

from vbss.errors import InputError

FILTER_LENGTH = 512  # taps of the distortion filter that is forgiven, as in BSS Eval
LIMIT = 120.0  # dB; beyond it the ratio is rounding error


class SeparationRatios(NamedTuple):
    """Ratios of separated sources, dB, in the order of the references, limited to [-120, 120].

    Attributes:
        sdr: signal to distortion, which is all that is not the source through a filter of 512 taps (BSS Eval).
        sir: signal to interference, which is what the other sources through such filters explain beyond that (BSS
            Eval); 120 for a single source.
        sar: signal, of all sources, to artefacts, which is what no such filters of any source explain, noise among it
            (BSS Eval); the `sdr` for a single source.
        si_sdr: scale-invariant signal to distortion: as `sdr`, but only a gain is forgiven.
        permutation: `estimates[permutation[n]]` belongs to `references[n]`.
    """

    sdr: Float[np.ndarray, " sources"]
    sir: Float[np.ndarray, " sources"]
    sar: Float[np.ndarray, " sources"]
    si_sdr: Float[np.ndarray, " sources"]
    permutation: Int[np.ndarray, " sources"]


def separation_ratios(references: Shaped[np.ndarray, "..."], estimates: Shaped[np.ndarray, "..."]) -> SeparationRatios:
    """SDR, SIR, SAR and SI-SDR of estimates in any order, of which there may be more than sources.

    Estimates are given to references so that the sum of the SDR is highest; those left over do not count. SDR, SIR
    and SAR are those of Vincent, Gribonval, Fevotte: Performance measurement in blind audio source separation, IEEE
    TASLP 2006; SI-SDR that of Le Roux, Wisdom, Erdogan, Hershey: SDR - half-baked or well done?, ICASSP 2019.

    No reference is taken for noise, as the BSS Eval of 2006 can: noise that is in an estimate counts as an artefact, so
    that SAR says nothing of its own where there is much of it. The shorter the signals, the more of anything the
    filters explain: of white noise, about `512 * sources / samples` of its energy.

    Args:
        references: true sources, `(sources, samples)`, at least 512 samples.
        estimates: separated sources, `(estimates, samples)`, at least as many as references. The ratios of a silent
            one are -120 dB.

    Raises:
        InputError: if shapes do not fit, samples are too few or not finite, or a reference is silent.
    """
    references, estimates = _checked_signals(references, estimates)
    if len(estimates) < len(references):
        raise InputError(
            f"estimates must be at least as many as references, got {len(estimates)} for {len(references)}."
        )
    references, estimates = _full_scale(references), _full_scale(estimates)
    own, all_sources = _shares(references, estimates)
    sdr, sir = _decibels(own), _interference_ratio(own, all_sources)
    rows, permutation = linear_sum_assignment(-sdr)
    matched = estimates[permutation]
    energies = np.sum(references**2, axis=1) * np.sum(matched**2, axis=1)
    in_phase = np.sum(references * matched, axis=1) ** 2 / np.where(energies > 0, energies, 1.0)
    return SeparationRatios(
        sdr=sdr[rows, permutation],
        sir=sir[rows, permutation],
        sar=_decibels(all_sources[rows, permutation]),
        si_sdr=_decibels(in_phase),
        permutation=permutation,
    )


def pairwise_ratios(
    references: Shaped[np.ndarray, "..."], estimates: Shaped[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "sources estimates"], Float[np.ndarray, "sources estimates"]]:
    """SDR and SIR of every estimate as each of the sources, dB; see `separation_ratios`, whose errors they raise."""
    references, estimates = _checked_signals(references, estimates)
    own, all_sources = _shares(_full_scale(references), _full_scale(estimates))
    return _decibels(own), _interference_ratio(own, all_sources)


def signal_to_distortion_ratio(
    references: Shaped[np.ndarray, "..."], estimates: Shaped[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, " sources"], Int[np.ndarray, " sources"]]:
    """Signal-to-distortion ratio of BSS Eval: a filter of 512 taps on each reference is forgiven.

    **Arguments:**

    - `references`: true sources, `(sources, samples)`, at least 512 samples.
    - `estimates`: separated sources in any order, of the same shape.

    **Returns:**

    - the ratios, dB, `(sources,)`, in the order of the references, limited to [-120, 120]; -120 for an
      estimate that is silent.
    - the permutation, `(sources,)`, with the highest sum of ratios: `estimates[permutation[n]]` belongs to
      `references[n]`.

    **Raises:** `InputError` if shapes differ, samples are too few or not finite, or a reference is silent.
    """
    references, estimates = _checked_signals(references, estimates)
    if len(references) != len(estimates):
        raise InputError(
            "references and estimates must both have shape (sources, samples), "
            f"got {references.shape} and {estimates.shape}."
        )
    ratios = separation_ratios(references, estimates)
    return ratios.sdr, ratios.permutation


def _checked_signals(
    references: Shaped[np.ndarray, "..."], estimates: Shaped[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "sources samples"], Float[np.ndarray, "estimates samples"]]:
    references = np.asarray(references, dtype=float)
    estimates = np.asarray(estimates, dtype=float)
    if references.ndim != 2 or estimates.ndim != 2 or references.shape[1] != estimates.shape[1] or not len(references):
        raise InputError(
            "references and estimates must both have shape (sources, samples), "
            f"got {references.shape} and {estimates.shape}."
        )
    if references.shape[1] < FILTER_LENGTH:
        raise InputError(f"references must have at least {FILTER_LENGTH} samples, got {references.shape[1]}.")
    for name, signals in [("references", references), ("estimates", estimates)]:
        if not np.all(np.isfinite(signals)):
            raise InputError(f"{name} must be finite.")
    silent = ~np.any(references, axis=1)
    if silent.any():
        raise InputError(f"references must not be silent: reference {silent.argmax()} is zero everywhere.")
    return references, estimates


def _shares(
    references: Float[np.ndarray, "sources samples"], estimates: Float[np.ndarray, "estimates samples"]
) -> tuple[Float[np.ndarray, "sources estimates"], Float[np.ndarray, "sources estimates"]]:
    """Of an estimate's energy: in the span of one filtered reference, and of all of them."""
    from fast_bss_eval import numpy as fast_bss_eval

    return fast_bss_eval.square_cosine_metrics(references, estimates, filter_length=FILTER_LENGTH)


def _interference_ratio(own: Float[np.ndarray, "..."], all_sources: Float[np.ndarray, "..."]) -> np.ndarray:
    return _decibels(own / np.where(all_sources > 0, all_sources, 1.0))


def _full_scale(signals: np.ndarray) -> np.ndarray:
    """Signals with peak one: the library does not normalise those whose norm is below 1e-6."""
    peaks = np.max(np.abs(signals), axis=1, keepdims=True)
    return signals / np.where(peaks > 0, peaks, 1.0)


def _decibels(share: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Ratio of a share of the energy to the rest of it, dB, within the limits."""
    tiny = np.finfo(float).tiny
    ratio = np.log10(np.maximum(share, tiny)) - np.log10(np.maximum(1.0 - share, tiny))
    return np.clip(10.0 * ratio, -LIMIT, LIMIT)
