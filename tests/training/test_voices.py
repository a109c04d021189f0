"""Mixtures of a voice with others: sums at the ratios that were asked, by the seed, and clear words otherwise."""

import inspect
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

from vbss.audio import STFT
from vbss.errors import InputError
from vbss.scenes import SpeechCorpus
from vbss.training import SpeechSpectra, VoiceMixtures

TRANSFORM = STFT.init(8000, 0.032, 0.008)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for name, low in (("voice", True), ("other", False)):
        (folder / name).mkdir()
        spectrum = np.fft.rfft(rng.standard_normal(16000))
        spectrum[(np.arange(8001) > 4000) == low] = 0
        soundfile.write(folder / name / "x.wav", 0.1 * np.fft.irfft(spectrum), 8000)

    def of(name, num_frames=16):
        return SpeechSpectra(SpeechCorpus(folder, {name: (f"{name}/x.wav",)}), stft=TRANSFORM, num_frames=num_frames)

    return of


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_items_are_a_voice_and_what_it_is_heard_in(speech, snr):
    corpus = VoiceMixtures(speech("voice"), speech("other"), num_items=5, snr=(snr, snr))
    voice, mixture = corpus[3]
    assert voice.shape == mixture.shape == (16, 129) and voice.dtype == mixture.dtype == np.float32
    np.testing.assert_allclose(mixture.mean(), 1, rtol=1e-3)
    # The voice is below 2 kHz, the other above.
    np.testing.assert_allclose(mixture[:, :60], voice[:, :60], rtol=0.1, atol=1e-3)
    assert 10 * np.log10(voice.sum() / mixture[:, 69:].sum()) == pytest.approx(snr, abs=1)
    np.testing.assert_array_equal(corpus[3][1], mixture)
    assert "voice/x.wav" in corpus.name_of(3) and f"at {snr:.0f} dB" in corpus.name_of(3)
    with pytest.raises(IndexError):
        corpus[5]


def test_ratios_are_drawn_between_two(speech):
    corpus = VoiceMixtures(speech("voice"), speech("other"), snr=(-5.0, 5.0))
    assert len(corpus) == 8 * len(speech("voice"))
    shares = [np.log10(voice.sum() / mixture.sum()) for voice, mixture in map(corpus.__getitem__, range(8))]
    assert np.std(shares) > 0.05


def test_rows_may_hold_several_frames(speech):
    corpora = [VoiceMixtures(speech("voice"), speech("other"), context=context) for context in (1, 4)]
    np.testing.assert_array_equal(corpora[1][2][0], corpora[0][2][0].reshape(4, 4 * 129))
    assert corpora[0].fingerprint != corpora[1].fingerprint
    again = VoiceMixtures(speech("voice"), speech("other"))
    assert again.fingerprint == corpora[0].fingerprint != VoiceMixtures(speech("voice"), speech("voice")).fingerprint


def test_a_speakers_own_validation(speech):
    whole = speech("voice")
    heard, kept = whole.held_out(4)
    assert heard.stretches + kept.stretches == whole.stretches and len(kept) == max(1, len(whole) // 4)
    np.testing.assert_array_equal(kept[0][0], whole[len(heard)][0])
    assert len({whole.fingerprint, heard.fingerprint, kept.fingerprint}) == 3
    with pytest.raises(InputError, match="two stretches"):
        whole.held_out(1000)[1].held_out(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr": (5.0, -5.0)}, "snr must be"),
        ({"snr": (0.0, 100.0)}, "snr must be"),
        ({"snr": 0.0}, "snr must be two numbers"),
        ({"snr": ("low", "high")}, "snr must be two numbers"),
        ({"num_items": 0}, "num_items"),
        ({"context": 5}, "context must divide"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_options_are_said(speech, options, message):
    with pytest.raises(InputError, match=message):
        inspect.unwrap(VoiceMixtures.__init__)(Mock(), speech("voice"), speech("other"), **options)
    with pytest.raises(InputError, match="others must have the transform"):
        VoiceMixtures(speech("voice"), speech("other", 8))
