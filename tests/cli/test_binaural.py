"""`vbss calibrate`, and `vbss separate` and `vbss localize` of two ears: what they write, say and refuse."""

import json

import numpy as np
import pytest
import soundfile
from head_sets import rigid_responses
from two_voices import AZIMUTHS, SAMPLE_RATE, level_head, voices

import vbss
from vbss.audio import write_recording
from vbss.binaural import Calibration
from vbss.cli import main
from vbss.models import GaussianMixture
from vbss.scenes import structural_head

CUES = ["--sample-rate", str(SAMPLE_RATE), "--window", "0.032", "--hop", "0.008"]


def write_head(path, heads):
    np.savez(
        path,
        allow_pickle=False,
        azimuth_deg=np.degrees(heads.azimuths),
        elevation_deg=np.degrees(heads.elevations),
        ir=heads.responses,
        fs=np.array(heads.sample_rate),
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A head, its calibration, and a recording of two voices."""
    folder = tmp_path_factory.mktemp("binaural")
    write_head(folder / "head.npz", level_head())
    write_recording(folder / "mix.wav", voices()[1].samples, SAMPLE_RATE)
    options = ["--pieces", "3", "6", "--seconds", "0.3", "--quiet"]
    assert (
        main(["calibrate", "--head", str(folder / "head.npz"), "--out", str(folder / "head.vbss"), *options, *CUES])
        == 0
    )
    return folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def the_one_line(capsys):
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("vbss: error: ") and output.err.endswith("\n") and output.err.count("\n") == 1
    return output.err


def finite_json(text):
    def refused(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refused)


def check_report(report, model):
    assert report["schema_version"] == 4 and report["model"] == model and report["warnings"] == []
    assert report["input"]["channels"] == 2 and report["input"]["sample_rate"] == SAMPLE_RATE
    assert report["input"]["seconds"] == pytest.approx(1.0)
    assert report["settings"]["vessl"] == "best" and report["settings"]["seed"] == 0
    assert report["cues"]["sample_rate"] == SAMPLE_RATE
    for stage in report["inference"]:
        assert stage["status"] in ("converged", "max_steps") and len(stage["elbo"]) == stage["num_steps"] + 1


def test_a_calibration_is_kept_in_a_file(folder):
    calibration = vbss.load(folder / "head.vbss")
    assert isinstance(calibration, Calibration) and calibration.name == "head"
    assert [len(ppam.log_weights) for ppam in calibration.maps] == [3, 6]
    assert calibration.cues.sample_rate == SAMPLE_RATE and not calibration.has_elevations
    assert names(folder) == {"head.npz", "mix.wav", "head.vbss"}


def test_separate_with_a_calibration(folder, tmp_path, capsys):
    out = tmp_path / "result"
    line = ["separate", str(folder / "mix.wav"), "--sources", "2", "--calibration", str(folder / "head.vbss")]
    assert main([*line, "--out", str(out), "--model", "vessl"]) == 0
    assert names(out) == {"report.json", "report.png", "source_1.wav", "source_2.wav"} and names(tmp_path) == {"result"}
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    report = finite_json((out / "report.json").read_text())
    check_report(report, "vessl")
    assert [stage["stage"] for stage in report["inference"]] == ["cue model"]
    assert [stage["model"] for stage in report["inference"]] == ["VESSL"]
    for number, (source, azimuth) in enumerate(zip(report["sources"], AZIMUTHS, strict=True), 1):
        assert source["azimuth_degrees"] == pytest.approx(azimuth, abs=4)
        assert source["elevation_degrees"] is source["delay_seconds"] is source["delay_posterior"] is None
        assert source["file"] == f"source_{number}.wav" and source["expected_sdr_db"] is None
        posterior = source["position_posterior"]
        assert 0.99 < sum(posterior["weights"]) <= 1 + 1e-6
        assert posterior["weights"] == sorted(posterior["weights"], reverse=True)
        heaviest = posterior["means_degrees"][0]
        assert heaviest == pytest.approx([source["azimuth_degrees"]], abs=10)
        assert np.shape(posterior["covariances_degrees2"]) == (len(posterior["weights"]), 1, 1)
        assert np.min(posterior["covariances_degrees2"]) > 0
    assert sum(source["energy_share"] for source in report["sources"]) == pytest.approx(1)
    mixture, sources = soundfile.read(folder / "mix.wav")[0], [soundfile.read(out / f"source_{n}.wav") for n in (1, 2)]
    assert all(samples.shape == mixture.shape and rate == SAMPLE_RATE for samples, rate in sources)
    np.testing.assert_allclose(sources[0][0] + sources[1][0], mixture, atol=1e-5)
    output = capsys.readouterr()
    assert output.err == ""
    for number, told in enumerate(output.out.splitlines(), 1):
        azimuth = round(report["sources"][number - 1]["azimuth_degrees"])
        assert told.startswith(f"{out / f'source_{number}.wav'}: azimuth {azimuth} degrees, ")
        assert told.endswith(" % of the energy")


def test_separate_without_a_calibration(folder, tmp_path, capsys):
    out = tmp_path / "result"
    line = ["separate", str(folder / "mix.wav"), "--sources", "2", "--model", "messl", "--out", str(out)]
    assert main(line) == 0
    report = finite_json((out / "report.json").read_text())
    check_report(report, "messl")
    assert [stage["model"] for stage in report["inference"]] == ["MESSL"]
    for source, azimuth in zip(report["sources"], AZIMUTHS, strict=True):
        assert source["azimuth_degrees"] == pytest.approx(azimuth, abs=12)
        assert source["position_posterior"] is None
        posterior = source["delay_posterior"]
        assert sum(posterior["probabilities"]) == pytest.approx(1, abs=1e-4)
        mean = np.dot(posterior["delays_seconds"], posterior["probabilities"])
        assert mean == pytest.approx(source["delay_seconds"], abs=1e-8)
        assert np.sign(mean) == np.sign(azimuth)
    assert names(out) == {"report.json", "report.png", "source_1.wav", "source_2.wav"}
    assert "(left ear earlier by -0." in capsys.readouterr().out
    # An earlier result is replaced, and not by an input inside it.
    assert main([*line, "--quiet", "--seed", "3"]) == 0
    assert finite_json((out / "report.json").read_text())["settings"]["seed"] == 3
    assert capsys.readouterr().out == ""


def test_localize_prints_and_writes(folder, tmp_path, capsys):
    line = ["localize", str(folder / "mix.wav"), "--sources", "2", "--calibration", str(folder / "head.vbss")]
    line += ["--model", "vessl"]
    assert main(line) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and told[0].startswith("source 1: azimuth 3") and told[1].startswith("source 2: azimuth -2")
    assert main([*line, "--out", str(tmp_path / "result"), "--quiet"]) == 0
    assert names(tmp_path / "result") == {"report.json", "report.png"}
    report = finite_json((tmp_path / "result" / "report.json").read_text())
    assert "file" not in report["sources"][0] and "energy_share" not in report["sources"][0]
    assert f"azimuth {round(report['sources'][0]['azimuth_degrees'])} degrees" in told[0]


def test_localize_by_delays(folder, capsys):
    assert main(["localize", str(folder / "mix.wav"), "--sources", "2", "--model", "messl"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and all("left ear earlier by" in line and line.endswith(" ms)") for line in told)


def test_elevations_are_told(folder, tmp_path, capsys):
    azimuths, elevations = (angles.ravel() for angles in np.meshgrid(np.arange(-80, 81, 20.0), [-30.0, 0.0, 30.0]))
    heads = structural_head(np.radians(azimuths), np.radians(elevations), SAMPLE_RATE)
    head, out = write_head(tmp_path / "sphere.npz", heads), tmp_path / "sphere.vbss"
    assert main(["calibrate", "--head", str(head), "--out", str(out), "--seconds", "0.2", *CUES]) == 0
    assert capsys.readouterr().out == f"{out}: 27 azimuths and elevations of sphere, maps of 5 pieces\n"
    line = ["localize", str(folder / "mix.wav"), "--sources", "2", "--calibration", str(out), "--model", "vessl"]
    assert main([*line, "--out", str(tmp_path / "result")]) == 0
    assert ", elevation " in capsys.readouterr().out
    report = finite_json((tmp_path / "result" / "report.json").read_text())
    for source in report["sources"]:
        assert -90 <= source["elevation_degrees"] <= 90
        assert np.shape(source["position_posterior"]["means_degrees"])[1] == 2


def test_recordings_calibrate_and_an_earlier_calibration_is_replaced(tmp_path, capsys):
    heads, own = level_head(), tmp_path / "room"
    heads = heads.take(np.arange(0, len(heads), 6))
    own.mkdir()
    lines = ["file,azimuth_degrees"]
    for number, (noise, azimuth) in enumerate(zip(heads.white_noise(0.2), np.degrees(heads.azimuths), strict=True)):
        write_recording(own / f"{number}.wav", noise, SAMPLE_RATE)
        lines.append(f"{number}.wav,{azimuth:.0f}")
    (own / "recordings.csv").write_text("\n".join(lines) + "\n")
    line = ["calibrate", "--recordings", str(own), "--out", str(tmp_path / "room.vbss"), "--level-only", *CUES]
    for _ in range(2):
        assert main(line) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'room.vbss'}: 7 azimuths of room, maps of 3 pieces\n"
    assert vbss.load(tmp_path / "room.vbss").cues.num_channels == 1
    # What is there and no calibration stays.
    before = (own / "recordings.csv").read_bytes()
    assert main([*line[:3], "--out", str(own / "recordings.csv"), *CUES]) == 2
    assert "no earlier calibration" in the_one_line(capsys)
    assert (own / "recordings.csv").read_bytes() == before and names(tmp_path) == {"room", "room.vbss"}


def write(path, content=""):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def with_samples(path, samples, rate=SAMPLE_RATE):
    soundfile.write(path, np.asarray(samples).T, rate, subtype="FLOAT")
    return path


def noise(channels=2, samples=SAMPLE_RATE):
    return 0.1 * np.random.default_rng(0).standard_normal((channels, samples))


def other_file(folder):
    data = np.random.default_rng(0).standard_normal((9, 2))
    import jax

    vbss.save(folder / "mixture", GaussianMixture.init(data, 2, key=jax.random.key(0)))
    return folder / "mixture"


SEPARATION_REFUSED = {
    "no calibration file": (lambda f: {"calibration": f / "nowhere.vbss"}, "there is no file"),
    "a folder for the calibration": (lambda f: {"calibration": f}, "there is no file"),
    "a head for the calibration": (lambda f: {"calibration": "head.npz"}, "not one that vbss.save wrote"),
    "a sound for the calibration": (lambda f: {"calibration": "mix.wav"}, "is not a file of vbss.save"),
    "an empty calibration": (lambda f: {"calibration": write(f / "empty.vbss")}, "is not a file of vbss.save"),
    "another model for the calibration": (
        lambda f: {"calibration": other_file(f)},
        "holds a GaussianMixture, no calibration of a head",
    ),
    "half a calibration": (lambda f: {"calibration": "half"}, "is not a file of vbss.save"),
    "an array too": (lambda f: {"array": "linear:2:0.1"}, "--array is of microphones in the open; --calibration"),
    "an array for messl": (
        lambda f: {"array": "linear:2:0.1", "calibration": None, "model": "messl"},
        "--array is of microphones in the open; --model messl",
    ),
    "a model of arrays": (lambda f: {"model": "cgmm"}, "--model must be vessl, vessl+nmf or the like"),
    "an option of arrays": (lambda f: {"window": 0.1}, "--window is for microphones in the open"),
    "another option of arrays": (lambda f: {"iterations": 3}, "--iterations is for microphones in the open"),
    "a preset without ears": (
        lambda f: {"calibration": None, "array": "linear:2:0.1", "preset": "paper"},
        "--preset is for a recording of two ears",
    ),
    "an unknown model": (lambda f: {"model": "vessl+rhubarb"}, "--model must be one of vessl+nmf"),
    "an unknown model alone": (lambda f: {"model": "messl+", "calibration": None}, "--model must be one of vessl+nmf"),
    "vessl without a calibration": (
        lambda f: {"model": "vessl+nmf", "calibration": None},
        "--calibration must be given for --model vessl",
    ),
    "sources to be counted": (lambda f: {"sources": "auto"}, "--sources must be a whole number"),
    "no sources": (lambda f: {"sources": 0}, "--sources"),
    "too many sources": (lambda f: {"sources": 9}, "--sources must be a whole number, from 1 to 8, got 9"),
    "more sources than pieces": (lambda f: {"sources": 7}, "--sources (7) must not exceed the 6 pieces"),
    "an unknown preset": (lambda f: {"preset": "rhubarb"}, "--preset"),
    "no recording": (lambda f: {"mix": f / "nowhere.wav"}, "there is no sound file"),
    "one channel": (lambda f: {"mix": with_samples(f / "a.wav", noise(1))}, "two channels"),
    "three channels": (lambda f: {"mix": with_samples(f / "a.wav", noise(3))}, "two channels (left, right), got 3"),
    "a silent ear": (lambda f: {"mix": with_samples(f / "a.wav", noise() * [[1], [0]])}, "silent at the right ear"),
    "a low rate": (lambda f: {"mix": with_samples(f / "a.wav", noise(), 4000)}, "below the 8000 Hz"),
    "shorter than a window": (lambda f: {"mix": with_samples(f / "a.wav", noise(2, 99))}, "must last 0.032 s or more"),
    "an output that is a file": (lambda f: {"out": write(f / "taken")}, "is a file"),
    "an output that holds the recording": (lambda f: {"out": "."}, "lies inside the output folder"),
}


@pytest.mark.parametrize("command", ["separate", "localize"])
@pytest.mark.parametrize("name", SEPARATION_REFUSED)
def test_bad_input_is_one_line_and_leaves_nothing(folder, tmp_path, capsys, name, command):
    make, message = SEPARATION_REFUSED[name]
    (tmp_path / "half").write_bytes((folder / "head.vbss").read_bytes()[:5000])
    options = {"mix": "mix.wav", "sources": 2, "calibration": "head.vbss", "out": tmp_path / "result"} | make(tmp_path)
    if options["calibration"] == "half":
        options["calibration"] = tmp_path / "half"
    line = [command, str(folder / options.pop("mix"))]
    for option, value in options.items():
        if value is not None:
            line += [f"--{option}", str(folder / value if option in ("calibration", "out") else value)]
    before, shared = names(tmp_path), names(folder)
    assert main(line) == 2
    assert message in the_one_line(capsys)
    assert names(tmp_path) == before and names(folder) == shared


def written_head(folder, **changes):
    heads = level_head()
    arrays = {"azimuth_deg": np.degrees(heads.azimuths), "elevation_deg": np.degrees(heads.elevations)}
    arrays |= {"ir": heads.responses, "fs": np.array(SAMPLE_RATE)} | changes
    np.savez(folder / "other.npz", allow_pickle=False, **arrays)
    return folder / "other.npz"


CALIBRATION_REFUSED = {
    "no head": (lambda f: {"head": f / "nowhere.npz"}, "there is no file of responses"),
    "an empty folder": (lambda f: {"head": f}, "holds neither heads.csv nor responses.csv"),
    "a sound": (lambda f: {"head": "mix.wav"}, "or a file of the kinds"),
    "a calibration": (lambda f: {"head": "head.vbss"}, "or a file of the kinds"),
    "a broken .npz": (lambda f: {"head": write(f / "a.npz", "rhubarb")}, "must be an .npz file of the arrays"),
    "a broken .mat": (lambda f: {"head": write(f / "a.mat", "rhubarb")}, "must be a .mat file"),
    "a broken .sofa": (lambda f: {"head": write(f / "a.sofa", "rhubarb")}, "sofa"),
    "a nan": (lambda f: {"head": written_head(f, ir=np.full((37, 2, 64), np.nan))}, "silent or not finite"),
    "three directions": (lambda f: {"azimuths": "-5 5"}, "at least 4 directions, got 3"),
    "no direction": (
        lambda f: {"azimuths": "1 2"},
        "--azimuths and --elevations leave none of the 37 directions",
    ),
    "no such elevation": (lambda f: {"elevations": "40 90"}, "--azimuths and --elevations leave none"),
    "angles that are none": (lambda f: {"azimuths": "nan nan"}, "--azimuths and --elevations leave none"),
    "too many pieces": (lambda f: {"pieces": 99}, "--pieces must be a whole number, from 1 to 37, got 99"),
    "no pieces": (lambda f: {"pieces": 0}, "--pieces"),
    "pieces that shrink": (lambda f: {"pieces": "6 3"}, "--pieces must grow"),
    "no noise": (lambda f: {"seconds": 0}, "--seconds"),
    "hardly any noise": (lambda f: {"seconds": 0.02}, "no whole window"),
    "a negative ridge": (lambda f: {"ridge": -1}, "--ridge"),
    "a window of nothing": (lambda f: {"window": "nan"}, "--window"),
    "a hop above the window": (lambda f: {"hop": 1}, "--hop"),
    "a negative frequency": (lambda f: {"highest-phase": -1}, "--highest-phase"),
    "a low rate": (lambda f: {"sample-rate": 100}, "--sample-rate"),
    "both kinds": (lambda f: {"recordings": f}, "not allowed with"),
    "neither kind": (lambda f: {"head": None}, "is required"),
    "no recordings": (lambda f: {"head": None, "recordings": f}, "no table"),
    "an output that is a folder": (lambda f: {"out": f}, "must name a file in an existing folder"),
    "an output in no folder": (lambda f: {"out": f / "a" / "b"}, "must name a file in an existing folder"),
    "an output that is the head": (lambda f: {"out": "head.npz"}, "is what is to be read"),
    "an output that is a sound": (lambda f: {"out": "mix.wav"}, "no earlier calibration"),
}


@pytest.mark.parametrize("name", CALIBRATION_REFUSED)
def test_bad_heads_are_one_line_and_leave_nothing(folder, tmp_path, capsys, name):
    make, message = CALIBRATION_REFUSED[name]
    options = {"head": "head.npz", "out": tmp_path / "new.vbss", "seconds": 0.1, "window": 0.032, "hop": 0.008}
    options |= {"sample-rate": SAMPLE_RATE} | make(tmp_path)
    line = ["calibrate"]
    for option, value in options.items():
        if value is not None:
            line += [f"--{option}", *str(folder / value if option in ("head", "out") else value).split()]
    before, shared = names(tmp_path), {path: path.read_bytes() for path in folder.iterdir()}
    assert main(line) == 2
    assert message in the_one_line(capsys)
    assert names(tmp_path) == before and {path: path.read_bytes() for path in folder.iterdir()} == shared


def test_a_sofa_file_without_fields_is_refused(folder, tmp_path, capsys):
    sofar = pytest.importorskip("sofar", reason="sofar comes with the extra for SOFA files")
    sofa = sofar.Sofa("SimpleFreeFieldHRIR")
    sofa.Data_IR = rigid_responses(np.array([0.0, 30, 60, 90]), np.zeros(4))[:, :1]
    sofa.Data_SamplingRate, sofa.Data_Delay = SAMPLE_RATE, np.zeros((1, 1))
    sofa.SourcePosition, sofa.ReceiverPosition = np.zeros((4, 3)), np.zeros((1, 3))
    sofar.write_sofa(str(tmp_path / "one_ear.sofa"), sofa)
    other = sofar.Sofa("GeneralTF")
    sofar.write_sofa(str(tmp_path / "transfer.sofa"), other)
    for name, message in (("one_ear", "two receivers"), ("transfer", "has no Data.IR")):
        line = ["calibrate", "--head", str(tmp_path / f"{name}.sofa"), "--out", str(tmp_path / "new.vbss")]
        assert main(line) == 2
        assert message in the_one_line(capsys)
    assert names(tmp_path) == {"one_ear.sofa", "transfer.sofa"}


def test_a_failure_while_writing_leaves_the_earlier_result(folder, tmp_path, capsys, monkeypatch):
    line = [
        "separate",
        str(folder / "mix.wav"),
        "--sources",
        "2",
        "--model",
        "messl",
        "--out",
        str(tmp_path / "result"),
    ]
    assert main(line) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr("vbss.cli.binaural.write_report", full)
    assert main([*line, "--seed", "1"]) == 2
    assert the_one_line(capsys) == "vbss: error: no space left\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_inference_that_fails_is_code_1(folder, tmp_path, capsys, monkeypatch):
    from vbss.binaural import whole
    from vbss.inference import Status

    infer = whole.infer_messl

    def failing(*arguments, **options):
        found = infer(*arguments, **options)
        return found._replace(status=Status.nonfinite, masks=np.nan * found.masks)

    monkeypatch.setattr(whole, "infer_messl", failing)
    for command in ("separate", "localize"):
        line = [command, str(folder / "mix.wav"), "--sources", "2", "--model", "messl", "--out", str(tmp_path / "new")]
        assert main(line) == 1
        the_one_line(capsys)
    assert names(tmp_path) == set()
