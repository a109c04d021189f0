import array_separation
import numpy as np
import pytest
import soundfile
from array_separation import _fill_in
from records import Records
from report import write_report
from systems import SYSTEMS

from vbss.scenes import LOW_VOICE, SpeechCorpus, speech_like


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for speaker in range(2):
        (folder / f"speaker{speaker}").mkdir()
        soundfile.write(folder / f"speaker{speaker}" / "speech.wav", speech_like(LOW_VOICE, 7.0, 8000, speaker), 8000)
    return SpeechCorpus.read(folder)


def test_what_is_finished_is_not_computed_again(corpus, tmp_path, monkeypatch):
    records = Records(tmp_path / "records")

    def fill_in(num_scenes):
        _fill_in(records, corpus, "30dB", ["mixture"], num_scenes, tmp_path / "scenes")
        return records.of("30dB", "mixture", SYSTEMS["mixture"].identity())

    first = fill_in(1)
    assert list(first) == [0]
    np.testing.assert_allclose(np.mean(first[0]["sdr"]), 0.0, atol=2.0)
    assert first[0]["cpu_seconds"] >= 0
    assert first[0]["memory"] >= 0
    assert not first[0]["failed"]

    def no_worker(system):
        raise AssertionError("nothing was left to do")

    with monkeypatch.context() as patch:
        patch.setattr(array_separation, "_worker", no_worker)
        assert fill_in(1) == first
        with pytest.raises(AssertionError, match="nothing was left"):
            fill_in(2)

    text = write_report(records, ["clean", "30dB"], tmp_path)
    assert "### 30dB" in text
    assert "### clean" not in text
    assert "| mixture | 1 |" in text
    assert (tmp_path / "report.md").read_text() == text
    assert (tmp_path / "report.png").stat().st_size > 0
