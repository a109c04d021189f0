"""Other people's separation and localisation, called as their documentation advises; everything in double precision."""

import numpy as np
from jaxtyping import Complex, Float
from observation import Estimate, Observation
from scipy import signal
from scipy.cluster.hierarchy import fcluster, linkage

_HOP = 4  # hops in a window


def auxiva(observation: Observation, *, window: float, model: str, iterations: int, outputs: str) -> Estimate:
    """AuxIVA of pyroomacoustics, with as many `outputs` as "sources" (then it is OverIVA) or as "microphones"."""
    from pyroomacoustics.bss import auxiva as separate

    mixture = _forward(observation, window)
    num_outputs = observation.num_sources if outputs == "sources" else mixture.shape[2]
    separated = separate(mixture, n_src=num_outputs, n_iter=iterations, model=model)
    return Estimate(_inverse(separated, observation, window))


def auxiva_determined(observation: Observation, *, window: float, model: str, iterations: int) -> Estimate:
    """AuxIVA on as many microphones as there are sources, evenly chosen from the array, the first among them."""
    return auxiva(_determined(observation), window=window, model=model, iterations=iterations, outputs="microphones")


def auxiva_clustered(observation: Observation, *, window: float, model: str, iterations: int) -> Estimate:
    """AuxIVA+: an output for each microphone; outputs whose amplitudes rise and fall together are one source.

    They are clustered by average linkage on one minus the correlation of their amplitudes over all bins, and each
    cluster is summed: projected back, the outputs add up to the mixture.
    """
    from pyroomacoustics.bss import auxiva as separate

    separated = separate(_forward(observation, window), n_iter=iterations, model=model)
    amplitudes = np.abs(separated).reshape(-1, separated.shape[2]).T
    distances = 1 - np.corrcoef(amplitudes)[np.triu_indices(len(amplitudes), 1)]
    labels = fcluster(linkage(distances, "average"), observation.num_sources, "maxclust")
    clusters = [separated[..., labels == label].sum(2) for label in np.unique(labels)]
    return Estimate(_inverse(np.stack(clusters, axis=2), observation, window))


def ilrma(observation: Observation, *, window: float, components: int, iterations: int) -> Estimate:
    """ILRMA of pyroomacoustics, with an output for each microphone."""
    from pyroomacoustics.bss import ilrma as separate

    np.random.seed(0)
    separated = separate(_forward(observation, window), n_iter=iterations, n_components=components)
    return Estimate(_inverse(separated, observation, window))


def fastmnmf2(
    observation: Observation, *, window: float, components: int, iterations: int, spare_sources: int
) -> Estimate:
    """FastMNMF2 of pyroomacoustics, with `spare_sources` more than there are, for what belongs to none."""
    from pyroomacoustics.bss import fastmnmf2 as separate

    np.random.seed(0)
    separated = separate(
        _forward(observation, window),
        n_src=observation.num_sources + spare_sources,
        n_iter=iterations,
        n_components=components,
    )
    return Estimate(_inverse(separated, observation, window))


def cacgmm(observation: Observation, *, window: float, iterations: int, alignment: str, sweeps: int) -> Estimate:
    """cACGMM of ssspy with its permutation alignment; its masks, and the multichannel Wiener filter of vbss."""
    import jax.numpy as jnp
    from ssspy.bss.cacgmm import CACGMM

    from vbss.audio import multichannel_wiener

    mixture = _forward(observation, window)
    solver = {"global_iter": sweeps, "local_iter": sweeps} if alignment.endswith("score") else {}
    mixture_model = CACGMM(
        n_sources=observation.num_sources,
        permutation_alignment=alignment,
        record_loss=False,
        rng=np.random.default_rng(0),
        **solver,
    )
    mixture_model(mixture.transpose(2, 1, 0), n_iter=iterations)
    masks = mixture_model.posterior.transpose(2, 1, 0)
    filtered = multichannel_wiener(jnp.asarray(mixture, jnp.complex64), jnp.asarray(masks, jnp.float32))
    return Estimate(_inverse(np.moveaxis(np.asarray(filtered), 0, 2), observation, window))


def localise(observation: Observation, *, algorithm: str, window: float, lowest: float, highest: float) -> Estimate:
    """A localisation of pyroomacoustics, "SRP" (that is SRP-PHAT) or "NormMUSIC", from `lowest` to `highest` Hz.

    There is a candidate azimuth for every degree. If there are too few peaks, the highest stands for those missing.
    """
    from pyroomacoustics.doa import algorithms

    localiser = algorithms[algorithm](
        observation.microphone_positions.T,
        observation.sample_rate,
        _window_length(observation, window),
        num_src=observation.num_sources,
        n_grid=360,
    )
    mixture = _forward(observation, window).transpose(2, 1, 0)
    localiser.locate_sources(mixture, num_src=observation.num_sources, freq_range=[lowest, highest])
    peaks = localiser.azimuth_recon
    return Estimate(directions=np.concatenate([peaks, np.full(observation.num_sources - len(peaks), peaks[-1])]))


def _window_length(observation: Observation, window: float) -> int:
    return round(window * observation.sample_rate)


def _forward(observation: Observation, window: float) -> Complex[np.ndarray, "frames frequencies microphones"]:
    """The mixture's transform, unnormalised as pyroomacoustics has it, of samples with root mean square one."""
    length = _window_length(observation, window)
    level = np.sqrt(np.mean(observation.mixture**2))
    samples = observation.mixture.astype(np.float64) / level
    _, _, spectrogram = signal.stft(samples, nperseg=length, noverlap=length - length // _HOP)
    return np.ascontiguousarray(spectrogram.transpose(2, 1, 0)) * signal.get_window("hann", length).sum()


def _inverse(
    spectrogram: Complex[np.ndarray, "frames frequencies estimates"], observation: Observation, window: float
) -> Float[np.ndarray, "estimates samples"]:
    length = _window_length(observation, window)
    normalised = spectrogram.transpose(2, 1, 0) / signal.get_window("hann", length).sum()
    _, samples = signal.istft(normalised, nperseg=length, noverlap=length - length // _HOP)
    return samples[:, : observation.mixture.shape[1]] * np.sqrt(np.mean(observation.mixture**2))


def _determined(observation: Observation) -> Observation:
    num_microphones = len(observation.mixture)
    chosen = np.arange(observation.num_sources) * num_microphones // observation.num_sources
    return observation._replace(
        mixture=observation.mixture[chosen], microphone_positions=observation.microphone_positions[chosen]
    )
