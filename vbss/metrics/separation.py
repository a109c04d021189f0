"""Quality of separated sources against the true ones."""

import numpy as np
from jaxtyping import Float, Int, Shaped

from vbss.errors import InputError

FILTER_LENGTH = 512  # taps of the distortion filter that is forgiven, as in BSS Eval
LIMIT = 120.0  # dB; beyond it the ratio is rounding error


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
    from fast_bss_eval import numpy as fast_bss_eval

    references = np.asarray(references, dtype=float)
    estimates = np.asarray(estimates, dtype=float)
    if references.ndim != 2 or references.shape != estimates.shape or len(references) == 0:
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

    # The library does not normalise signals whose norm is below 1e-6, so give it loud ones.
    ratios, permutation = fast_bss_eval.sdr(
        _full_scale(references),
        _full_scale(estimates),
        filter_length=FILTER_LENGTH,
        clamp_db=LIMIT,
        return_perm=True,
    )
    return ratios, permutation


def _full_scale(signals: np.ndarray) -> np.ndarray:
    peaks = np.max(np.abs(signals), axis=1, keepdims=True)
    return signals / np.where(peaks > 0, peaks, 1.0)
