"""A long recording, block by block: bounded memory, sources that stay who they are, and a run that can be stopped."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Real

from vbss.audio.array_recording import ArrayRecording
from vbss.audio.files import Recording
from vbss.audio.sound_files import SoundFiles
from vbss.errors import InputError, positive
from vbss.inference import Status
from vbss.separation.continuity import carried, places_at, same_order
from vbss.separation.growing import State, append, clear, finish, source_files
from vbss.separation.results import Block, LongSeparation
from vbss.separation.whole import locate_recorded, separate_located
from vbss.settings import Settings

_EXCERPTS = 8  # spread over the recording: where all sources are to be found
_PIECE = 2**20  # samples at a time where all are only looked at


def separate_long(
    files: str | Path | Sequence[str | Path],
    microphone_positions: Real[Array | np.ndarray, "microphones 3"] | None,
    num_sources: int | np.integer | str,
    folder: str | Path,
    *,
    block: float = 30.0,
    overlap: float = 3.0,
    reference_microphone: Any = 0,
    progress: Callable[[int, int], Any] | None = None,
    **settings: Any,
) -> LongSeparation:
    """Separate a recording of any length into files, in memory that does not grow with its length.

    Directions are first looked for in excerpts from all over the recording. Then block after block is separated as
    `vbss.separate` does it, each starting from the directions that the last one ended with, so that sources may move.
    Where two blocks overlap, it is heard who is who, and one fades into the other. A source that is silent or unclear
    in a block keeps its direction for the next. Where the microphones' positions are not known, the sources' spatial
    covariances stand for their directions, and sources are in the order of their energy in the excerpts.

    A run that was stopped, in whatever way, goes on where it was when it is called again with the same recording and
    arguments, and the result is the same, sample by sample.

    Args:
        files: a sound file with one channel per microphone, or one file for each microphone in order.
        microphone_positions: metres, in the order of the channels; None if they are not known.
        num_sources: how many sources there are in the whole recording; "auto" counts them in the excerpts.
        folder: an existing folder, in which `source_1.wav`, ... (32-bit float) grow; `state.npz` until all is done.
        block: s; how much is separated at a time. A shorter recording is one block.
        overlap: s, of two blocks; at most half a block.
        reference_microphone: whose sound is separated, counted from 0.
        progress: called as progress(done, blocks) at the start and after each block.
        settings: fields of `vbss.Settings`.

    Raises:
        InputError: as `vbss.separate`, and for a file that cannot be read or is not finite.
    """
    chosen, started = Settings(**settings).of_array(microphone_positions is not None), perf_counter()
    sound = SoundFiles.open(*([files] if isinstance(files, str | Path) else files))
    plan = _Plan.make(sound, block, overlap)
    content = _content(sound)
    excerpts = Recording(_excerpts(sound, plan.length), sound.sample_rate)
    recorded = ArrayRecording.check(excerpts, microphone_positions, reference_microphone)
    positions = None if microphone_positions is None else np.asarray(microphone_positions).tolist()
    asked = (content, version("vbss"), num_sources, chosen, plan, positions)
    identity = blake2b(repr((*asked, reference_microphone)).encode(), digest_size=16).hexdigest()
    folder = Path(folder)
    state = State.read(folder, identity)
    if state is None:
        clear(folder)
        places = locate_recorded(recorded, num_sources, chosen).places
        sources = len(places)
        state = State(identity, 0, 0, np.zeros((sources, 0)), places, np.zeros(sources), [], 0.0)
    while True:
        if progress is not None:
            progress(state.num_blocks, len(plan.starts))
        if state.num_blocks == len(plan.starts):
            break
        state = _next(state, sound, plan, recorded, chosen, folder, started)
        started = perf_counter()
        state.write(folder)
    finish(folder)
    return LongSeparation(
        sources=source_files(folder, len(state.energies)),
        sample_rate=sound.sample_rate,
        num_samples=sound.num_samples,
        blocks=tuple(Block(**fields) for fields in state.blocks),
        energies=state.energies,
        reference_microphone=int(recorded.channels[recorded.reference_microphone]),
        settings=chosen,
        warnings=(*recorded.warnings, *_doubts(state.blocks)),
        seconds=state.seconds,
    )


@dataclass(frozen=True)
class _Plan:
    """How a recording is cut: blocks of one length, the last moved back to end with the recording; in samples."""

    length: int
    overlap: int
    starts: tuple[int, ...]

    @classmethod
    def make(cls, sound: SoundFiles, block: Any, overlap: Any) -> "_Plan":
        length = round(positive("block", block) * sound.sample_rate)
        common = round(positive("overlap", overlap) * sound.sample_rate)
        if not 1 <= common <= length // 2:
            raise InputError(f"overlap must be at most half of the block of {block} s, got {overlap} s.")
        if sound.num_samples <= length:
            return cls(sound.num_samples, 0, (0,))
        last = sound.num_samples - length
        return cls(length, common, (*range(0, last, length - common), last))


def _content(sound: SoundFiles) -> str:
    """A hash of all samples; an `InputError` where one is not finite, before any work is done."""
    digest, start = blake2b(digest_size=16), 0
    for piece in sound.pieces(_PIECE):
        is_finite = np.isfinite(piece)
        if not is_finite.all():
            channel, sample = np.argwhere(~is_finite)[0]
            raise InputError(
                f"recording must be finite; channel {channel} is not at sample {start + sample} (counted from 0)."
            )
        digest.update(piece.tobytes())
        start += piece.shape[1]
    return digest.hexdigest()


def _excerpts(sound: SoundFiles, length: int) -> Float[np.ndarray, "channels samples"]:
    """As many samples as a block has, in excerpts evenly spread over the recording."""
    if sound.num_samples == length:
        return sound.read()
    lengths = np.diff(np.linspace(0, length, _EXCERPTS + 1).astype(int))
    starts = np.linspace(0, sound.num_samples - lengths.max(), _EXCERPTS).astype(int)
    return np.concatenate(
        [sound.read(start, start + size) for start, size in zip(starts.tolist(), lengths.tolist(), strict=True)], axis=1
    )


def _next(
    state: State,
    sound: SoundFiles,
    plan: _Plan,
    recorded: ArrayRecording,
    settings: Settings,
    folder: Path,
    started: float,
) -> State:
    """Separate one block more, and write what is final of it."""
    start = plan.starts[state.num_blocks]
    stop = start + plan.length
    block = recorded.of(sound.read(start, stop))
    separation = _separated(block, places_at(state.places, recorded.channels, block.channels), settings)
    begin = state.num_samples - start  # what lies before is written
    sources, places = separation.sources[:, begin:], separation.places
    tail, order = state.tail, np.arange(len(sources))
    if tail.size:
        order = same_order(tail, sources[:, : tail.shape[1]])
        sources, places = sources[order], places[order]
        share = (np.arange(tail.shape[1]) + 0.5) / tail.shape[1]
        faded = (1 - share) * tail + share * sources[:, : tail.shape[1]]
        sources = np.concatenate([faded.astype(sources.dtype), sources[:, tail.shape[1] :]], 1)
    kept = sources.shape[1] - (0 if stop == sound.num_samples else plan.overlap)
    append(folder, sources[:, :kept], sound.sample_rate, state.num_samples, sound.num_samples)

    energies = separation.energy_shares[order]
    ratios = None if separation.expected_sdr is None else separation.expected_sdr[order]
    directions = None if separation.directions is None else separation.directions[order]
    found = Block(
        start=start / sound.sample_rate,
        stop=stop / sound.sample_rate,
        directions=None if directions is None else [float(a) if np.isfinite(a) else None for a in directions],
        energy_shares=energies.tolist(),
        expected_sdr=None if ratios is None else ratios.tolist(),
        statuses=separation.statuses,
        warnings=list(separation.warnings),
    )
    return replace(
        state,
        num_blocks=state.num_blocks + 1,
        num_samples=state.num_samples + kept,
        tail=sources[:, kept:],
        places=carried(state.places, places, energies, ratios),
        energies=state.energies + np.sum(np.square(sources[:, :kept], dtype=np.float64), 1),
        blocks=[*state.blocks, asdict(found)],
        seconds=state.seconds + perf_counter() - started,
    )


class _Separated(NamedTuple):
    """What a block needs of a separation."""

    sources: Float[np.ndarray, "sources samples"]
    places: Float[np.ndarray, "sources ..."]
    directions: Float[np.ndarray, " sources"] | None
    energy_shares: Float[np.ndarray, " sources"]
    expected_sdr: Float[np.ndarray, " sources"] | None
    statuses: dict[str, str]
    warnings: tuple[str, ...]


def _separated(recorded: ArrayRecording, places: Float[np.ndarray, "sources ..."], settings: Settings) -> _Separated:
    """A block's sources. Of silence, silence; where the mixture model fails, each gets a share of what is heard."""
    num_sources = len(places)
    unknown = None if settings.pipeline.is_blind else np.full(num_sources, np.nan)
    shares = np.full(num_sources, 1 / num_sources)
    if not recorded.samples.any():
        silence = np.zeros((num_sources, recorded.samples.shape[1]), recorded.samples.dtype)
        return _Separated(silence, places, unknown, shares, None, {}, ("the block is silent.",))
    located = locate_recorded(recorded, num_sources, settings, start=places)
    separation = separate_located(recorded, located, settings)
    statuses = {stage: solution.status for stage, solution in separation.solutions.items()}
    if Status.interrupted in statuses.values():
        raise KeyboardInterrupt
    told = {stage: status.name for stage, status in statuses.items()}
    if statuses["mixture model"] is Status.nonfinite:
        heard = recorded.samples[recorded.reference_microphone] / num_sources
        sources = np.ldexp(np.broadcast_to(heard, (num_sources, len(heard))), recorded.exponent)
        return _Separated(sources, places, unknown, shares, None, told, separation.warnings)
    return _Separated(
        separation.sources,
        located.places,
        separation.directions,
        separation.energy_shares,
        separation.expected_sdr,
        told,
        separation.warnings,
    )


def _doubts(blocks: list[dict[str, Any]]) -> Iterator[str]:
    """The warnings of the blocks, counted."""
    doubtful = sum(bool(block["warnings"]) for block in blocks)
    if doubtful == 1 and len(blocks) == 1:
        yield from blocks[0]["warnings"]
    elif doubtful:
        yield f"{doubtful} of {len(blocks)} blocks are doubtful, see their own warnings."
