import sys
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import jaxtyping
import numpy as np
import pytest
import scipy.io
import sofar
from head_sets import RADIUS, SAMPLE_RATE, grid, rigid_responses

from vbss.audio import InterauralCues, write_recording
from vbss.errors import InputError
from vbss.scenes import HeadResponses, read_calibration_recordings

CUES = InterauralCues(sample_rate=SAMPLE_RATE)


@pytest.fixture(scope="module")
def head():
    azimuths, elevations = grid()
    return HeadResponses(
        rigid_responses(azimuths, elevations), np.radians(azimuths), np.radians(elevations), SAMPLE_RATE, "rigid"
    )


def write_sofa(path, responses, positions, **fields):
    sofa = sofar.Sofa("SimpleFreeFieldHRIR")
    sofa.Data_IR = responses
    sofa.Data_SamplingRate = SAMPLE_RATE
    sofa.Data_Delay = np.zeros((1, responses.shape[1]))
    sofa.SourcePosition = positions
    for name, value in fields.items():
        setattr(sofa, name, value)
    sofar.write_sofa(str(path), sofa)


def write_table(folder, name, azimuths, responses):
    folder.mkdir(exist_ok=True)
    lines = ["file,azimuth_degrees"]
    for number, (azimuth, response) in enumerate(zip(azimuths, responses, strict=True)):
        write_recording(folder / f"{number}.wav", response, SAMPLE_RATE)
        lines.append(f"{number}.wav,{azimuth}")
    (folder / name).write_text("\n".join(lines) + "\n")


def positions(azimuths, elevations):
    return np.stack([azimuths, elevations, np.full(len(azimuths), 1.5)], axis=1)


def assert_sides_agree(heads):
    """Sounds from the left arrive there first, are louder there and lead in phase."""
    lateral = heads.vectors[:, 1]
    is_aside = np.abs(lateral) > 0.3
    np.testing.assert_allclose(heads.interaural_delays[is_aside], 2 * RADIUS / 343 * lateral[is_aside], atol=3e-5)
    cues = heads.take(is_aside).calibration_cues(CUES, seconds=0.3)
    low = np.asarray(CUES.frequencies) < 700
    assert np.all(np.sign(cues[:, 0].mean(-1)) == np.sign(lateral[is_aside]))
    assert np.all(np.sign(cues[:, 2, low].mean(-1)) == np.sign(lateral[is_aside]))


def assert_same(first, second, places=1e-6):
    assert (first.sample_rate, first.is_mirrored) == (second.sample_rate, second.is_mirrored)
    for name in ("responses", "azimuths", "elevations"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=places)


def test_the_head_of_the_tests_is_what_it_should_be(head):
    assert_sides_agree(head)
    assert len(head) == 36 and head.azimuths.min() > -np.pi and head.azimuths.max() == pytest.approx(np.pi)
    np.testing.assert_allclose(np.linalg.norm(head.vectors, axis=1), 1)


def test_sofa(head, tmp_path):
    azimuths, elevations = grid()
    write_sofa(tmp_path / "rigid.sofa", head.responses, positions(azimuths, elevations))
    read = HeadResponses.read(tmp_path / "rigid.sofa")
    assert read.name == "rigid" and read.responses.dtype == np.float64
    assert_same(read, head)
    vectors = 1.5 * head.vectors
    write_sofa(
        tmp_path / "cartesian.sofa",
        head.responses,
        vectors,
        SourcePosition_Type="cartesian",
        SourcePosition_Units="metre",
    )
    assert_same(HeadResponses.read(str(tmp_path / "cartesian.sofa")), head)


def test_a_sofa_head_may_turn_and_move(head, tmp_path):
    """One loudspeaker, 2 m from a head that turns to the right in order to hear it on the left."""
    azimuths, _ = grid(elevations=(0,))
    angles = np.radians(azimuths)
    views = np.stack([np.cos(angles), -np.sin(angles), np.zeros_like(angles)], axis=1)
    responses = rigid_responses(azimuths, np.zeros_like(azimuths))
    fields = {"ListenerView": views, "ListenerPosition": [[1.0, 0.0, 0.2]]}
    fields |= {"SourcePosition_Type": "cartesian", "SourcePosition_Units": "metre"}
    write_sofa(tmp_path / "turned.sofa", responses, np.array([[3.0, 0.0, 0.2]]), **fields)
    read = HeadResponses.read(tmp_path / "turned.sofa")
    np.testing.assert_allclose(np.exp(1j * read.azimuths), np.exp(1j * angles), atol=1e-12)
    np.testing.assert_allclose(read.elevations, 0, atol=1e-12)
    assert not read.is_mirrored
    # The head bends to the right, by 90 degrees: what is in front stays there, what was on the left is above.
    fields = {"ListenerView": np.array([[1.0, 0, 0]]), "ListenerUp": np.array([[0.0, -1, 0]])}
    front_and_left = np.array([[0.0, 0, 1], [90.0, 0, 1]])
    write_sofa(tmp_path / "bent.sofa", rigid_responses([0, 0], [0, -90]), front_and_left, **fields)
    np.testing.assert_allclose(HeadResponses.read(tmp_path / "bent.sofa").vectors, [[1, 0, 0], [0, 0, -1]], atol=1e-9)


@pytest.fixture(scope="module")
def mirrored(head, tmp_path_factory):
    azimuths, elevations = grid()
    path = tmp_path_factory.mktemp("mirrored") / "mirrored.sofa"
    write_sofa(path, head.responses, positions(-azimuths % 360, elevations))
    return HeadResponses.read(path)


def test_mirrored_azimuths_are_negated(head, mirrored):
    assert mirrored.is_mirrored and not head.is_mirrored
    assert_sides_agree(mirrored)
    assert_same(replace(mirrored, is_mirrored=False), head)
    # Directions are numbered by the angles that the file has.
    azimuths, elevations = grid()
    order = np.lexsort((elevations, -azimuths % 360))
    np.testing.assert_array_equal(mirrored.numbers[order], np.arange(36))


def test_ears_in_the_other_order_are_exchanged_where_the_file_says_so(head, tmp_path):
    azimuths, elevations = grid()
    right_first = np.array([[0, -0.09, 0], [0, 0.09, 0]])
    path = tmp_path / "exchanged.sofa"
    write_sofa(path, head.responses[:, ::-1], positions(azimuths, elevations), ReceiverPosition=right_first)
    assert_same(HeadResponses.read(path), head)
    # A file that says so of ears that hear the right sides is not believed.
    write_sofa(path, head.responses, positions(azimuths, elevations), ReceiverPosition=right_first)
    assert_same(HeadResponses.read(path), head)


def test_delays_beside_the_responses_count(head, tmp_path):
    azimuths, elevations = grid()
    path = tmp_path / "delays.sofa"
    delays = np.tile([[5.0, 5.0]], (36, 1))
    delays[4, 1] = 7.0
    write_sofa(path, head.responses, positions(azimuths, elevations), Data_Delay=delays)
    read = HeadResponses.read(path)
    assert read.responses.shape == (36, 2, 66)
    np.testing.assert_allclose(read.responses[0, :, :64], head.responses[0], atol=1e-9)
    np.testing.assert_allclose(read.responses[4, 1, 2:], head.responses[4, 1], atol=1e-9)


def test_wrong_sofa_files_are_refused(head, tmp_path, monkeypatch):
    path = tmp_path / "wrong.sofa"
    path.write_bytes(b"no such thing")
    with pytest.raises(InputError, match="cannot be read as a SOFA file"):
        HeadResponses.read(path)
    ears = np.zeros((3, 3))
    write_sofa(path, head.responses[:, [0, 0, 1]], positions(*grid()), ReceiverPosition=ears)
    with pytest.raises(InputError, match="two receivers"):
        HeadResponses.read(path)

    complete = sofar.Sofa("SimpleFreeFieldHRIR")
    for name, field in [("Data_IR", "Data.IR"), ("Data_SamplingRate", "Data.SamplingRate"), ("SourcePosition",) * 2]:
        fields = {name: getattr(complete, name) for name in ("Data_IR", "Data_SamplingRate", "SourcePosition")}
        del fields[name]
        monkeypatch.setattr(sofar, "read_sofa", lambda *_, fields=fields, **__: type("Sofa", (), fields)())
        with pytest.raises(InputError, match=f"no {field}"):
            HeadResponses.read(path)
    monkeypatch.setitem(sys.modules, "sofar", None)
    with pytest.raises(InputError, match=r'pip install "vbss\[sofa\]"'):
        HeadResponses.read(path)


def test_arrays(head, tmp_path):
    azimuths, elevations = grid()
    arrays = {"azimuth_deg": azimuths, "elevation_deg": elevations, "ir": head.responses, "fs": SAMPLE_RATE}
    np.savez(tmp_path / "rigid.npz", allow_pickle=False, **arrays)
    assert_same(HeadResponses.read(tmp_path / "rigid.npz"), head)
    np.savez(tmp_path / "rigid.npz", allow_pickle=False, **{**arrays, "ir": head.responses[:, :1]})
    with pytest.raises(InputError, match=r"\(directions, 2, taps\)"):
        HeadResponses.read(tmp_path / "rigid.npz")
    np.savez(tmp_path / "rigid.npz", allow_pickle=False, ir=head.responses)
    with pytest.raises(InputError, match="arrays azimuth_deg"):
        HeadResponses.read(tmp_path / "rigid.npz")


def test_cipic(tmp_path):
    lateral = np.array([-80, -65, -55, *range(-45, 50, 5), 55, 65, 80], float)
    around = -45 + 5.625 * np.arange(50)
    # CIPIC's right is positive; a direction's place on the interaural axis alone decides what this head hears.
    sides = rigid_responses(-lateral, np.zeros(25), 44100)
    ears = np.repeat(sides[:, None], 50, axis=1)
    path = tmp_path / "hrir_final.mat"
    scipy.io.savemat(path, {"hrir_l": ears[:, :, 0], "hrir_r": ears[:, :, 1]})
    heads = HeadResponses.read(path)
    assert len(heads) == 1250 and heads.sample_rate == 44100 and not heads.is_mirrored
    np.testing.assert_allclose(heads.vectors[:, 1], np.repeat(-np.sin(np.radians(lateral)), 50), atol=1e-12)
    front, above, behind = (12 * 50 + int(np.flatnonzero(around == angle)[0]) for angle in (0, 90, 180))
    np.testing.assert_allclose(heads.vectors[[front, above, behind]], [[1, 0, 0], [0, 0, 1], [-1, 0, 0]], atol=1e-12)
    np.testing.assert_array_equal(heads.numbers, np.arange(1250))
    scipy.io.savemat(path, {"hrir_l": ears[:, :, 0]})
    with pytest.raises(InputError, match="hrir_l and hrir_r"):
        HeadResponses.read(path)


def test_tables_of_sound_files(head, tmp_path):
    azimuths, _ = grid(elevations=(0,))
    responses = rigid_responses(azimuths, np.zeros_like(azimuths)).astype(np.float32)
    write_table(tmp_path, "responses.csv", azimuths, responses)
    read = HeadResponses.read(tmp_path)
    assert_same(read, head.take(head.elevations == 0))
    assert_same(HeadResponses.read(tmp_path / "responses.csv"), read)
    write_recording(tmp_path / "0.wav", responses[0, :1], SAMPLE_RATE)
    with pytest.raises(InputError, match="two channels"):
        HeadResponses.read(tmp_path)
    write_recording(tmp_path / "0.wav", responses[0], 16000)
    with pytest.raises(InputError, match="one sample rate"):
        HeadResponses.read(tmp_path)
    (tmp_path / "responses.csv").write_text("file,azimuth_degrees\n0.wav,left\n")
    with pytest.raises(InputError, match="must be numbers"):
        HeadResponses.read(tmp_path)
    (tmp_path / "responses.csv").write_text("file,azimuth_degrees\n")
    with pytest.raises(InputError, match="names no file"):
        HeadResponses.read(tmp_path)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither heads.csv nor responses.csv"):
        HeadResponses.read(tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        HeadResponses.read(tmp_path / "missing.sofa")
    with pytest.raises(InputError, match="of the kinds"):
        HeadResponses.read(tmp_path / "head.wav")


def test_calibration_recordings(head, tmp_path):
    part = head.take([9, 27])
    noises = list(part.white_noise(0.3))
    write_table(tmp_path, "recordings.csv", [90, 270], noises)
    (left, azimuth, elevation), (_, other, _) = read_calibration_recordings(tmp_path)
    assert left.sample_rate == SAMPLE_RATE and elevation == 0
    assert (azimuth, other) == (np.pi / 2, -np.pi / 2)
    np.testing.assert_array_equal(left.samples, noises[0])
    with pytest.raises(InputError, match="no table"):
        read_calibration_recordings(tmp_path / "missing")


@hypothesis.given(st.integers(1, 60), st.integers(0, 2**31))
def test_parts_are_disjoint_and_all_there_is(count, seed):
    generator = np.random.default_rng(seed)
    azimuths, elevations = generator.uniform(-3, 3, count), generator.uniform(-1.5, 1.5, count)
    heads = HeadResponses(np.ones((count, 2, 1)), azimuths, elevations, SAMPLE_RATE)
    parts = {}
    for part in ("test", "dev", "calibration"):
        try:
            parts[part] = heads.split(part).numbers.tolist()
        except InputError:
            assert count < 3  # too few for all parts
    assert sorted(sum(parts.values(), [])) == list(range(count))
    assert parts["test"] == [number for number in heads.numbers if number % 5 == 0]
    order = np.lexsort((elevations, azimuths))
    np.testing.assert_array_equal(heads.numbers[order], np.arange(count))
    # A part of a part is of the same part.
    some = heads.take(generator.permutation(count)[: (count + 1) // 2])
    assert set(some.numbers[some.numbers % 5 == 0]) <= set(parts["test"])


def test_directions_within_limits(head):
    ahead = head.within(azimuths=(-np.pi / 3, np.pi / 3), elevations=(0.0, 0.0))
    np.testing.assert_allclose(np.sort(np.degrees(ahead.azimuths)), [-60, -30, 0, 30, 60])
    behind = head.within(azimuths=(np.radians(150), np.radians(-150)), elevations=(0.0, 1.0))
    assert len(behind) == 6
    assert len(head.within()) == 36
    with pytest.raises(InputError, match="indices"):
        head.within(elevations=(1.0, 1.5))
    with pytest.raises(InputError, match="indices"):
        head.take([36])


def test_another_sample_rate_keeps_gains_and_delays(head):
    higher = head.resampled(16000)
    assert higher.sample_rate == 16000 and head.resampled(SAMPLE_RATE) is head
    assert_sides_agree(replace(higher.resampled(SAMPLE_RATE), name="back"))
    before, after = np.fft.rfft(head.responses, 800), np.fft.rfft(higher.responses, 1600)
    np.testing.assert_allclose(np.abs(after[..., 5:300]), np.abs(before[..., 5:300]), rtol=2e-3)


def test_noise_is_a_directions_own_and_calibrates_it(head):
    some = head.take([3, 9, 27])
    cues = some.calibration_cues(CUES, seconds=0.5)
    assert cues.shape == (3, 3, 256) and cues.dtype == np.float32
    np.testing.assert_array_equal(head.take([9]).calibration_cues(CUES, seconds=0.5)[0], cues[1])
    assert not np.array_equal(some.calibration_cues(CUES, seconds=0.5, seed=1), cues)
    spectra = np.fft.rfft(some.responses, CUES.stft.window_length)[..., 1:]
    level = 20 * np.log10(np.abs(spectra[:, 0] / spectra[:, 1]))
    inner = slice(10, 200)
    np.testing.assert_allclose(cues[:, 0, inner], level[:, inner], atol=1.0)
    np.testing.assert_allclose(np.median(cues[:, 0, inner], axis=1), np.median(level[:, inner], axis=1), atol=0.1)
    noise = next(some.white_noise(0.25))
    assert noise.shape == (2, 2000) and noise.dtype == np.float32
    with pytest.raises(InputError, match="no whole window"):
        some.calibration_cues(CUES, seconds=0.01)


def test_impossible_sets_are_refused(head):
    silent = head.responses.copy()
    silent[4, 1] = 0
    for change, message in [
        ({"responses": silent}, "silent at an ear from direction 4"),
        ({"elevations": np.full(36, np.nan)}, "elevations must be finite"),
        ({"sample_rate": 0}, "sample_rate"),
    ]:
        with pytest.raises(InputError, match=message):
            replace(head, **change)


def test_shapes_that_do_not_belong_together_are_refused(head, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="responses must have shape"):
        replace(head, responses=head.responses[:, :1])
    with pytest.raises(InputError, match="azimuths must have one entry"):
        replace(head, azimuths=head.azimuths[:3])
