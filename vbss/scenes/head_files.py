"""Files of the impulse responses of heads: SOFA, CIPIC, arrays, and tables of sound files."""

import zipfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.io import loadmat

from vbss.audio import Recording, read_recording
from vbss.audio.files import check_sample_rate
from vbss.errors import InputError
from vbss.scenes.corpus import read_table
from vbss.scenes.head_geometry import direction_degrees, direction_vectors, wrapped

_TABLES = ("heads.csv", "responses.csv")
_RECORDINGS = "recordings.csv"
# CIPIC's lateral angles (positive on the right) and angles around the interaural axis, degrees.
_CIPIC_AZIMUTHS = np.array([-80, -65, -55, *range(-45, 46, 5), 55, 65, 80], float)
_CIPIC_ELEVATIONS = -45 + 5.625 * np.arange(50)
_CIPIC_RATE = 44100


@dataclass(frozen=True)
class HeadFile:
    """What a file says, right or wrong.

    Attributes:
        responses: of the first and the second channel.
        degrees: azimuth, counter-clockwise from the front, and elevation.
        sample_rate: Hz.
        own_degrees: the angles as the file itself has them, by which its directions are sorted.
        says_right_first: whether the file says that its first channel is the right ear.
    """

    responses: Float[np.ndarray, "directions 2 taps"]
    degrees: Float[np.ndarray, "directions 2"]
    sample_rate: int
    own_degrees: Float[np.ndarray, "directions 2"]
    says_right_first: bool = False


def read_head_file(path: str | Path) -> HeadFile:
    """The responses in a file or a folder, as `vbss.scenes.HeadResponses.read` describes them.

    Raises:
        InputError: as described there.
    """
    path = Path(path)
    if path.is_dir():
        tables = [path / name for name in _TABLES if (path / name).is_file()]
        if not tables:
            raise InputError(f"the folder of responses {str(path)!r} holds neither {' nor '.join(_TABLES)}.")
        path = tables[0]
    readers = {".sofa": _read_sofa, ".npz": _read_npz, ".mat": _read_cipic, ".csv": _read_wavs}
    if path.suffix.lower() not in readers:
        raise InputError(f"{str(path)!r} must be a folder, or a file of the kinds {', '.join(readers)}.")
    if not path.is_file():
        raise InputError(f"there is no file of responses {str(path)!r}.")
    return readers[path.suffix.lower()](path)


def read_calibration_recordings(folder: str | Path) -> list[tuple[Recording, float, float]]:
    """One's own recordings of a known sound, such as white noise, from known directions.

    The folder holds `recordings.csv` with the columns file (of two channels, left and right; relative to the folder),
    azimuth_degrees (from the front, counter-clockwise) and, optionally, elevation_degrees (0 if there is none). The
    cues of each are `vbss.audio.InterauralCues.temporal_mean` of its samples.

    Returns:
        Recordings, azimuths in (-pi, pi] and elevations, rad.

    Raises:
        InputError: if there is no such table, it lacks a column or a file, or a file has not two channels.
    """
    recordings, degrees = _read_stereo(Path(folder) / _RECORDINGS)
    azimuths, elevations = np.radians(wrapped(degrees[:, 0])), np.radians(degrees[:, 1])
    return list(zip(recordings, azimuths.tolist(), elevations.tolist(), strict=True))


def _read_sofa(path: Path) -> HeadFile:
    try:
        sofar = import_module("sofar")
    except ImportError as error:
        raise InputError(f'{str(path)!r}: reading SOFA files needs sofar: pip install "vbss[sofa]".') from error
    try:
        # Many files in use break a rule of the standard; what matters here is checked below.
        sofa = sofar.read_sofa(str(path), verify=False, verbose=False)
    except Exception as error:  # of netCDF, and of sofar's own checks, of many kinds
        raise InputError(f"{str(path)!r} cannot be read as a SOFA file ({error}).") from error
    responses = np.asarray(_field(path, sofa, "Data_IR"), np.float64)
    if responses.ndim == 4 and responses.shape[2] == 1:  # one loudspeaker
        responses = responses[:, :, 0]
    if responses.ndim != 3 or responses.shape[1] != 2:
        raise InputError(
            f"{str(path)!r}: Data.IR must be responses of two receivers, (measurements, 2, samples), got shape "
            f"{responses.shape}."
        )
    sample_rate = _sample_rate(path, _field(path, sofa, "Data_SamplingRate"))
    _field(path, sofa, "SourcePosition")
    degrees = _sofa_directions(path, sofa, len(responses))
    delays = np.broadcast_to(np.atleast_2d(getattr(sofa, "Data_Delay", 0.0)), responses.shape[:2])
    ears = np.asarray(getattr(sofa, "ReceiverPosition", np.zeros((2, 3))), float).reshape(2, 3, -1)[..., 0]
    is_cartesian = getattr(sofa, "ReceiverPosition_Type", "cartesian") == "cartesian"
    says_right_first = is_cartesian and bool(ears[0, 1] < 0 < ears[1, 1])
    return HeadFile(_delayed(responses, delays), degrees, sample_rate, degrees, says_right_first)


def _sofa_directions(path: Path, sofa: Any, count: int) -> np.ndarray:
    """Azimuths and elevations seen from the head, degrees: those in the file, unless the head turns or moves."""
    source = _positions(path, sofa, "SourcePosition", (0, 0, 1), count)
    ahead = _positions(path, sofa, "ListenerView", (1, 0, 0), count)
    above = _positions(path, sofa, "ListenerUp", (0, 0, 1), count)
    place = _positions(path, sofa, "ListenerPosition", (0, 0, 0), count)
    if np.allclose(ahead, [1, 0, 0]) and np.allclose(above, [0, 0, 1]) and np.allclose(place, 0):
        # The file's angles, without rounding.
        is_spherical = getattr(sofa, "SourcePosition_Type", "spherical") == "spherical"
        degrees = np.asarray(sofa.SourcePosition, float)[:, :2] if is_spherical else direction_degrees(source)
        degrees = np.broadcast_to(degrees, (count, 2))
    else:
        left = np.cross(above, ahead)
        axes = np.stack([ahead, left, np.cross(ahead, left)], axis=1)
        axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
        degrees = direction_degrees(np.einsum("dij,dj->di", axes, source - place))
    return degrees


def _positions(path: Path, sofa: Any, name: str, default: tuple[int, int, int], count: int) -> np.ndarray:
    """A vector for every measurement, (count, 3), x to the front and y to the left."""
    values = np.atleast_2d(np.asarray(getattr(sofa, name, default), float))
    if values.ndim != 2 or values.shape[1] != 3 or len(values) not in (1, count):
        raise InputError(f"{str(path)!r}: {name} must have shape ({count}, 3) or (1, 3), got {values.shape}.")
    kind = "ListenerView_Type" if name == "ListenerUp" else f"{name}_Type"  # the two share theirs
    if getattr(sofa, kind, "spherical" if name == "SourcePosition" else "cartesian") == "spherical":
        azimuths, elevations = np.radians(values[:, :2].T)
        values = values[:, 2:] * direction_vectors(azimuths, elevations)
    return np.broadcast_to(values, (count, 3))


def _field(path: Path, sofa: Any, name: str) -> Any:
    if not hasattr(sofa, name):
        raise InputError(f"{str(path)!r} has no {name.replace('Data_', 'Data.')}, which responses of a head need.")
    return getattr(sofa, name)


def _delayed(responses: np.ndarray, delays: np.ndarray) -> np.ndarray:
    """Responses with the delays that a SOFA file gives beside them (samples), but for what all have in common."""
    delays = delays - delays.min()
    if not delays.any():
        return responses
    taps = responses.shape[-1] + int(np.ceil(delays.max()))
    frequencies = np.fft.rfftfreq(2 * taps)
    spectra = np.fft.rfft(responses, 2 * taps) * np.exp(-2j * np.pi * frequencies * delays[..., None])
    return np.fft.irfft(spectra, 2 * taps)[..., :taps]


def _read_npz(path: Path) -> HeadFile:
    names = ("azimuth_deg", "elevation_deg", "ir", "fs")
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            azimuths, elevations, responses, sample_rate = (arrays[name] for name in names)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{str(path)!r} must be an .npz file of the arrays {', '.join(names)} ({error}).") from error
    if responses.ndim != 3 or responses.shape[1] != 2 or not azimuths.shape == elevations.shape == responses.shape[:1]:
        raise InputError(
            f"{str(path)!r}: ir must have shape (directions, 2, taps) and azimuth_deg and elevation_deg (directions,), "
            f"got {responses.shape}, {azimuths.shape} and {elevations.shape}."
        )
    degrees = np.stack([azimuths, elevations], axis=1).astype(float)
    return HeadFile(responses.astype(np.float64), degrees, _sample_rate(path, sample_rate), degrees)


def _read_cipic(path: Path) -> HeadFile:
    """A head of the CIPIC database (Algazi et al., 2001), whose angles are around the interaural axis."""
    try:
        arrays = loadmat(path, variable_names=["hrir_l", "hrir_r"])
        ears = [np.asarray(arrays[name], np.float64) for name in ("hrir_l", "hrir_r")]
    except Exception as error:  # scipy raises many kinds, and some of its own
        raise InputError(f"{str(path)!r} must be a .mat file of hrir_l and hrir_r, as CIPIC's ({error}).") from error
    grid = (len(_CIPIC_AZIMUTHS), len(_CIPIC_ELEVATIONS))
    if ears[0].shape != ears[1].shape or ears[0].ndim != 3 or ears[0].shape[:2] != grid:
        raise InputError(
            f"{str(path)!r}: hrir_l and hrir_r must have shape ({grid[0]}, {grid[1]}, taps), got {ears[0].shape} and "
            f"{ears[1].shape}."
        )
    own_degrees = np.stack(np.meshgrid(_CIPIC_AZIMUTHS, _CIPIC_ELEVATIONS, indexing="ij"), axis=-1).reshape(-1, 2)
    lateral, around = np.radians(own_degrees.T)
    vectors = [np.cos(lateral) * np.cos(around), -np.sin(lateral), np.cos(lateral) * np.sin(around)]
    degrees = direction_degrees(np.stack(vectors, axis=-1))
    responses = np.stack(ears, axis=2).reshape(len(degrees), 2, -1)
    return HeadFile(responses, degrees, _CIPIC_RATE, own_degrees)


def _read_wavs(table: Path) -> HeadFile:
    recordings, degrees = _read_stereo(table)
    rates = {recording.sample_rate for recording in recordings}
    if len(rates) > 1:
        raise InputError(f"{str(table)!r}: all files must have one sample rate, got {sorted(rates)} Hz.")
    taps = max(recording.samples.shape[1] for recording in recordings)
    padded = [np.pad(recording.samples, ((0, 0), (0, taps - recording.samples.shape[1]))) for recording in recordings]
    return HeadFile(np.stack(padded).astype(np.float64), degrees, rates.pop(), degrees)


def _read_stereo(table: Path) -> tuple[list[Recording], np.ndarray]:
    """The files that a table names, and their azimuths and elevations, degrees."""
    rows = read_table(table, ("file", "azimuth_degrees"))
    if not rows:
        raise InputError(f"{str(table)!r} names no file.")
    recordings, degrees = [], []
    for row in rows:
        try:
            degrees.append([float(row["azimuth_degrees"]), float(row.get("elevation_degrees", 0))])
        except ValueError as error:
            raise InputError(f"{str(table)!r}, {row['file']!r}: angles must be numbers ({error}).") from None
        recording = read_recording(table.parent / row["file"])
        if len(recording.samples) != 2:
            raise InputError(
                f"{str(table)!r}: {row['file']!r} must have the two channels (left, right), it has "
                f"{len(recording.samples)}."
            )
        recordings.append(recording)
    return recordings, np.array(degrees)


def _sample_rate(path: Path, value: Any) -> int:
    rate = np.asarray(value, float)
    if rate.size != 1 or rate.item() != np.round(rate.item()):
        raise InputError(f"{str(path)!r}: the sample rate must be one whole number in Hz, got {value!r}.")
    try:
        return check_sample_rate(int(rate.item()))
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from error
