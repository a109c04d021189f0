import json
import re

import numpy as np
import pytest
import soundfile
from enhancement import measured
from enhancement_report import corpus_report, pairs_report
from noisy_speech import mix, read_pairs

from vbss.errors import InputError
from vbss.metrics import separation_ratios
from vbss.scenes import HIGH_VOICE, LOW_VOICE, SpeechCorpus, speech_like

RATE = 16000


@pytest.fixture
def manifest(tmp_path):
    """Three pairs, one of them at twice the rate."""
    generator, rows = np.random.default_rng(0), ["clean,noisy,kind,snr"]
    (tmp_path / "sounds").mkdir()
    for number, (rate, kind) in enumerate([(RATE, "steady"), (2 * RATE, "steady"), (RATE, "loud")]):
        speech = speech_like((LOW_VOICE, HIGH_VOICE)[number % 2], 1.0, rate, seed=number)
        noise = {"steady": 0.02, "loud": 0.1}[kind] * generator.standard_normal(rate)
        for name, sound in (("clean", speech), ("noisy", speech + noise)):
            soundfile.write(tmp_path / "sounds" / f"{name}{number}.wav", sound, rate, subtype="FLOAT")
        rows.append(f"sounds/clean{number}.wav,sounds/noisy{number}.wav,{kind},{number}")
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "set.csv"


class Halfway:
    """A system that knows the truth: it takes away half of the noise's amplitude."""

    calls = 0

    def __call__(self, mixture):
        self.calls += 1
        return mixture.speech + mixture.noise / 2


def test_pairs_are_as_their_files_and_at_one_rate(manifest):
    pairs = list(read_pairs(manifest, RATE))
    assert [pair.name for pair in pairs] == [
        {"name": f"noisy{n}", "kind": kind, "snr": str(n)} for n, kind in enumerate(["steady", "steady", "loud"])
    ]
    assert {pair.sample_rate for pair in pairs} == {RATE}
    assert [len(pair.speech) for pair in pairs] == [RATE] * 3
    for number, pair in ((0, pairs[0]), (2, pairs[2])):
        clean, noisy = (soundfile.read(manifest.parent / f"sounds/{x}{number}.wav")[0] for x in ("clean", "noisy"))
        np.testing.assert_allclose(pair.speech, clean, atol=1e-6)
        np.testing.assert_allclose(pair.speech + pair.noise, noisy, atol=1e-6)
    same = speech_like(HIGH_VOICE, 1.0, 2 * RATE, seed=1)
    resampled = np.fft.irfft(np.fft.rfft(same)[: RATE // 2 + 1]) / 2
    assert separation_ratios(resampled[None], pairs[1].speech[None]).si_sdr[0] > 25


def test_results_are_kept_and_reported(manifest, tmp_path):
    file, halfway = tmp_path / "results.jsonl", Halfway()
    entries = measured(read_pairs(manifest, RATE), {"halfway": halfway}, file)
    assert entries == [json.loads(line) for line in file.read_text().splitlines()] and halfway.calls == 3
    for entry in entries:
        assert entry["halfway"]["si_sdr"] - entry["noisy"]["si_sdr"] == pytest.approx(20 * np.log10(2), abs=0.2)
    assert measured(read_pairs(manifest, RATE), {"halfway": halfway}, file) == entries and halfway.calls == 3
    report = pairs_report(entries, ["halfway"])
    groups = [line for line in report.splitlines() if line and not line.startswith(("|", "Means"))]
    assert groups == ["all files: 3", "loud: 1", "steady: 2"]
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith("| halfway")]
    assert [row[1][:3] for row in rows] == ["6.0"] * 3 and "inf" in rows[1][1] and "inf" not in rows[2][1]


def test_files_without_noise_or_of_silent_systems_are_measured(manifest, tmp_path):
    (tmp_path / "equal.csv").write_text("clean,noisy,name\nsounds/clean0.wav,sounds/clean0.wav,equal\n")
    entries = measured(read_pairs(tmp_path / "equal.csv", RATE), {"off": lambda m: 0 * m.speech}, tmp_path / "x.jsonl")
    assert entries[0]["name"] == "equal" and entries[0]["noisy"]["si_sdr"] > 100 and "sdr" not in entries[0]["noisy"]
    assert entries[0]["off"]["si_sdr"] == -120
    assert "equal" not in pairs_report(entries, ["off"])


def test_results_of_other_mixtures_or_systems_are_refused(manifest, tmp_path):
    file = tmp_path / "results.jsonl"
    measured(read_pairs(manifest, RATE), {"halfway": Halfway()}, file)
    with pytest.raises(InputError, match="line 1"):
        measured(read_pairs(manifest, RATE), {"other": Halfway()}, file)
    rows = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*rows[:2], *rows[3:]]) + "\n")
    with pytest.raises(InputError, match="line 2"):
        measured(read_pairs(manifest, RATE), {"halfway": Halfway()}, file)


def test_pairs_that_do_not_fit_are_refused(manifest):
    manifest.write_text("clean,noisy\nsounds/clean0.wav,sounds/noisy1.wav\n")
    with pytest.raises(InputError, match=r"\(1, 16000, 16000\) and \(1, 32000, 32000\)"):
        list(read_pairs(manifest, RATE))
    manifest.write_text("clean\nsounds/clean0.wav\n")
    with pytest.raises(InputError, match="no column 'noisy'"):
        list(read_pairs(manifest, RATE))


def test_a_corpus_without_utterances_is_refused(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "x.wav", np.ones(RATE), RATE)
    with pytest.raises(InputError, match="has no two speakers"):
        next(mix(SpeechCorpus.read(tmp_path), "test", 1))


def test_a_corpus_is_mixed_at_every_ratio_and_reported(tmp_path):
    for number in range(7):
        (tmp_path / f"speaker{number}").mkdir()
        sound = speech_like((LOW_VOICE, HIGH_VOICE)[number % 2], 2.0, RATE, seed=number)
        soundfile.write(tmp_path / f"speaker{number}" / "x.wav", sound, RATE, subtype="FLOAT")
    (tmp_path / "splits.csv").write_text("speaker,split\n" + "".join(f"speaker{n},test\n" for n in range(7)))
    (tmp_path / "noise").mkdir()
    for name in ("fan", "rain"):
        soundfile.write(tmp_path / "noise" / f"{name}.wav", np.random.default_rng(1).standard_normal(RATE), RATE)
    mixtures = list(mix(SpeechCorpus.read(tmp_path, split="test"), "test", 2))
    assert [m.name["snr"] for m in mixtures] == [-5, 0, 5] * 8
    assert {m.name["noise"] for m in mixtures if m.name["kind"] == "recorded"} == {"fan"}  # rain is of development
    for mixture in mixtures:
        ratio = 10 * np.log10(np.mean(mixture.speech**2) / np.mean(mixture.noise**2))
        assert ratio == pytest.approx(mixture.name["snr"], abs=1e-6)
    entries = measured(mixtures, {"halfway": Halfway()}, tmp_path / "results.jsonl")
    report = corpus_report(entries, ["halfway"])
    assert len(re.findall(r"\| halfway \| 6\.\d \[", report)) == 4 and "- halfway: 6.0 [" in report
