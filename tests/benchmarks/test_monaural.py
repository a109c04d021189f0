"""The benchmark of known speakers: its pairs and mixtures, baselines that separate what is easy, and its tables."""

import jax.numpy as jnp
import monaural
import monaural_baselines
import monaural_report
import numpy as np
import pytest
import soundfile

from vbss.audio import STFT
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.scenes import SpeechCorpus

RATE = 16000


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("ann", "eve", "bob"):
        (tmp_path / name).mkdir()
        for number in range(4):
            seconds = 1 if number == 0 else 3.5
            soundfile.write(tmp_path / name / f"{number}.wav", 0.1 * rng.standard_normal(round(seconds * RATE)), RATE)
    return SpeechCorpus.read(tmp_path)


def test_every_woman_is_heard_with_every_man(corpus):
    speakers = monaural.speakers_of(corpus, ["ann", "eve"], ["bob"])
    assert speakers[0].tests == ("ann/2.wav", "ann/3.wav") and speakers[0].heard == ("ann/1.wav",)
    pairs = list(monaural.pairs_of(speakers))
    assert [(woman.name, man.name) for woman, man in pairs] == [("ann", "bob"), ("eve", "bob")]
    sources = monaural.sources_of(corpus, pairs[1], 0)
    assert sources.shape == (2, round(3.5 * RATE))
    np.testing.assert_allclose(sources.std(1), 1)


def test_speakers_who_trained_the_network_of_vbss_are_refused(tmp_path):
    monaural.check_unheard(tmp_path, ["ann", "bob"])
    (tmp_path / "splits.csv").write_text("speaker,split\nann,test\nbob,train\n")
    monaural.check_unheard(tmp_path, ["ann"])
    with pytest.raises(InputError, match="bob may have trained"):
        monaural.check_unheard(tmp_path, ["ann", "bob"])


def test_estimates_are_of_a_known_speaker():
    sources = np.random.default_rng(0).standard_normal((2, 4000))
    right = monaural.measures(sources, sources + 0.1 * sources[::-1])
    assert min(right["sdr"]) > 15
    wrong = monaural.measures(sources, sources[::-1] + 0.1 * sources)
    assert max(wrong["sdr"]) < -5 and min(wrong["sar"]) > 15


def test_the_ideal_mask_and_nmf_tell_bands_apart():
    stft = STFT.init(8000, 0.032, 0.016)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal((2, 8000)))
    spectrum[0, 2000:], spectrum[1, :2000] = 0, 0
    sources = jnp.asarray(np.fft.irfft(spectrum))
    powers = jnp.abs(stft.forward(sources)) ** 2
    spectra = tuple(power.mean(0)[:, None] for power in powers)
    with relaxed_promotion():
        estimates = (
            monaural_baselines.separated_ideally(stft, sources),
            monaural_baselines.separated_by_spectra(spectra, stft, sources.sum(0)),
        )
    for found in estimates:
        assert float(jnp.square(found - sources).sum() / jnp.square(sources).sum()) < 0.01


def test_the_report_compares_over_pairs_and_ranks_variances():
    names = {name for pair in monaural_report._COMPARED for name in pair}
    rng = np.random.default_rng(0)

    def entry(woman, man, number):
        systems = {
            name: {key: [float(place), 1.0] for key in ("sdr", "sir", "sar")} | {"cpu_seconds": 0.5}
            for place, name in enumerate(sorted(names))
        }
        falling = [{"a network": list(np.arange(6.0)[::-1] + 0.01 * rng.random(6))}] * 2
        return {"woman": woman, "man": man, "number": number, "systems": systems, "variances": falling}

    pairs = [(woman, man) for woman in ("ann", "eve") for man in ("bob", "tom")]
    text = monaural_report.report_of([entry(*pair, number) for pair in pairs for number in (0, 1)], range(6))
    assert "8 mixtures of 4 pairs" in text and "| -1.00; of single mixtures -1.00 |" in text
    place = sorted(names).index("NMF") if "NMF" in names else 0
    assert f"| {sorted(names)[place]} | {(place + 1) / 2:.2f} [" in text
