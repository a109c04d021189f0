"""`vbss separate` of recordings longer than a block."""

import json

import numpy as np
import pytest
import soundfile

from vbss.cli import main
from vbss.separation import long

SAMPLE_RATE = 8000
OPTIONS = (
    "--sources 2 --array circular:4:0.08 --model cgmm --iterations 3 --window 0.064 --block 1 --overlap 0.25".split()
)


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "mix.wav"
    samples = 0.1 * np.random.default_rng(0).standard_normal((int(2.2 * SAMPLE_RATE), 4))
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    return path


@pytest.fixture
def separate(mix, tmp_path):
    return lambda *more: main(["separate", str(mix), *OPTIONS, "--out", str(tmp_path / "result"), *more])


def test_a_long_recording_is_separated_block_by_block(separate, tmp_path, capsys):
    assert separate() == 0
    output = capsys.readouterr()
    assert output.out.count("% of the energy") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"result"}
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert names == {"source_1.wav", "source_2.wav", "report.json", "report.png"}
    report = json.loads((tmp_path / "result" / "report.json").read_text())
    assert report["schema_version"] == 4 and report["model"] == "cgmm"
    times = [(block["start_seconds"], block["stop_seconds"]) for block in report["blocks"]]
    assert times == [(0, 1), (0.75, 1.75), (1.2, 2.2)]
    for block in report["blocks"]:
        assert len(block["directions_degrees"]) == len(block["energy_shares"]) == 2
        assert block["statuses"] == {"mixture model": "max_steps"}
    assert sum(source["energy_share"] for source in report["sources"]) == pytest.approx(1)
    assert soundfile.info(tmp_path / "result" / "source_2.wav").frames == int(2.2 * SAMPLE_RATE)


def test_an_interrupted_run_leaves_nothing_half_done_and_goes_on(separate, tmp_path, capsys, monkeypatch):
    calls, following = [], long._next

    def counted(*arguments):
        calls.append(arguments[0].num_blocks)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return following(*arguments)

    monkeypatch.setattr(long, "_next", counted)
    assert separate() == 130
    assert "interrupted" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {".result.partial"}
    assert separate() == 0
    assert calls == [0, 1, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"result"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--all-channels",), "--all-channels is for recordings of one block; --block is 1.0 s"),
        (("--block", "0"), "--block must be a positive number"),
        (("--overlap", "1"), "--overlap must be at most half of the block"),
        (("--reference", "4"), "--reference must be"),
    ],
)
def test_errors_name_the_options(separate, tmp_path, capsys, more, message):
    assert separate(*more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "result").exists()
