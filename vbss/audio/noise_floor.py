"""How far a recording's sound is above its noise floor."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

_FLOOR = 0.1  # the share of a frequency's bins that are below it


def level_above_floor(
    mixture: Complex[Array, "frames frequencies microphones"], is_observed: Bool[Array, "frequencies frames"]
) -> Float[Array, ""]:
    """The mean power of a frequency's bins over that which a tenth of them do not reach, dB, mean over the frequencies.

    Speech has pauses, in every band, and falls far below its mean; what sounds all the time fills them. A few voices in
    a room are 20 dB or more above the floor, with white noise 20 dB below them about 15. More voices are nearer to it.

    Args:
        mixture: a spectrogram, of windows that are not much longer than the sounds of speech (up to 0.2 s).
        is_observed: the bins that count, without silence; a frequency without any does not count.
    """
    power = (mixture.real**2 + mixture.imag**2).mean(-1).T
    heard = jnp.where(is_observed, power, jnp.nan)
    ratio = jnp.nanmean(heard, 1) / jnp.nanquantile(heard, _FLOOR, axis=1)
    return jnp.nanmean(10 * jnp.log10(ratio))
