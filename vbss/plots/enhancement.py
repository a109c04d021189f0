"""One figure for what was taken out of noise."""

from typing import TYPE_CHECKING

from vbss.audio.files import Recording
from vbss.errors import InputError
from vbss.plots.spectrogram import plot_spectrogram

if TYPE_CHECKING:
    import matplotlib.figure

    import vbss.enhancement

_PAGE, _DPI = (8.27, 11.69), 120  # inches: A4


def plot_enhancement(
    recording: Recording, found: "vbss.enhancement.KnownSources", channel: int = 0
) -> "matplotlib.figure.Figure":
    """Spectrograms of a channel of the recording, its sources and the noise, in one scale of 60 dB, and the bound.

    Several sources are all that there is, without noise.

    Args:
        recording: what was enhanced.
        found: by `vbss.enhance` or `vbss.separate_voices`.
        channel: which is shown.

    Raises:
        InputError: if recording is not that of the result.
    """
    from matplotlib.figure import Figure

    if recording.samples.shape != found.noise.shape:
        raise InputError(f"recording has shape {recording.samples.shape}, but the result {found.noise.shape}.")
    transform = {
        "window": found.stft.window_length / found.stft.sample_rate,
        "hop": found.stft.hop_length / found.stft.sample_rate,
    }
    figure = Figure(figsize=_PAGE, dpi=_DPI, layout="constrained")
    sounds = {"recording": recording.samples[channel]}
    if len(found.sources) == 1:
        sounds |= {"speech": found.speech[channel], "noise": found.noise[channel]}
    else:
        sounds |= {f"source {number}": source[channel] for number, source in enumerate(found.sources, 1)}
    *rows, last = figure.subplots(1 + len(sounds), 1)
    peak_level = None
    for axis, (name, sound) in zip(rows, sounds.items(), strict=True):
        image = plot_spectrogram(axis, sound, recording.sample_rate, peak_level=peak_level, **transform)
        peak_level = image.get_clim()[1] if peak_level is None else peak_level
        axis.set_title(name, loc="left")
        figure.colorbar(image, ax=axis, label="level (dB)")
    for number, solution in enumerate(found.solutions[channel], 1):
        last.plot(solution.elbo, label=f"block {number}")
    last.set(xlabel="step", ylabel="log density or bound (nats)")
    last.grid(alpha=0.3)
    if len(found.solutions[channel]) > 1:
        last.legend()
    return figure
