"""The frequencies above a recording's bandwidth, of which it says nothing."""

import jax.numpy as jnp
import numpy as np
from jax.lax import cummax
from jaxtyping import Array, Bool, Complex

_STRETCHES = 32  # that the recording is cut into
_RARE = 10  # one in so many stretches does not count: a click, a cut, or a slip of a codec holds all frequencies
_EMPTY = 1e-6  # 60 dB below the loudest frequency
_EDGE = 10**-2.4  # 24 dB below the third octave under it: filters fall so steeply, voices do not
_THIRD_OCTAVE = 2 ** (1 / 3)
_TOP = 0.95  # of all frequencies: above, every converter has an edge


def empty_bands(mixture: Complex[Array, "frames frequencies microphones"]) -> Bool[Array, " frequencies"]:
    """The frequencies above the bandwidth of a recording that was low-passed, or made at a lower rate.

    Nothing was recorded there, and what a codec or rounding left has no direction. They begin at a steep edge, above
    which no frequency comes within 60 dB of the loudest one, but in a tenth of the recording at most. The faint high
    frequencies of speech fall slowly, and are kept. Works under `jit`, at any level.
    """
    magnitudes = jnp.abs(mixture)
    peak = jnp.max(magnitudes)
    scaled = magnitudes / jnp.where(peak > 0, peak, 1)  # squares of a quiet recording would vanish
    power = jnp.sum(jnp.square(scaled), axis=-1)

    num_frames, num_frequencies = power.shape
    length = -(-num_frames // _STRETCHES)
    num_stretches = -(-num_frames // length)
    stretches = jnp.pad(power, ((0, num_stretches * length - num_frames), (0, 0))).reshape(num_stretches, length, -1)
    loudest = jnp.sort(jnp.max(stretches, axis=1), axis=0)
    level = loudest[num_stretches - 1 - num_stretches // _RARE]

    above = cummax(level, reverse=True)
    edges = np.arange(1, num_frequencies)
    starts = (edges / _THIRD_OCTAVE).astype(int)
    # Summed from the top, where little is: the difference of two sums from the bottom would be rounding there.
    sums = jnp.cumsum(level[::-1])[::-1]
    below = (sums[starts] - sums[edges]) / jnp.asarray(edges - starts, level.dtype)
    is_edge = (above[1:] < _EMPTY * jnp.max(level)) & (above[1:] < _EDGE * below) & (edges < _TOP * num_frequencies)
    return jnp.concatenate([jnp.zeros(1, bool), jnp.cumsum(is_edge, dtype=int) > 0])
