import sys

import numpy as np
import pytest
import soxr

from vbss.errors import InputError
from vbss.metrics import speech_quality
from vbss.scenes import LOW_VOICE, speech_like

RATE = 16000


@pytest.fixture(scope="module")
def speech():
    return speech_like(LOW_VOICE, 2.0, RATE)


@pytest.fixture(scope="module")
def packages():
    reason = "PESQ and STOI come with the extra metrics"
    return pytest.importorskip("pesq", reason=reason), pytest.importorskip("pystoi", reason=reason)


def noisy(speech, level):
    return speech + level * np.random.default_rng(0).standard_normal(len(speech))


def test_speech_itself_is_perfect(packages, speech):
    found = speech_quality(speech, speech, RATE)
    np.testing.assert_allclose(found, [4.64, 4.55, 1, 1], atol=5e-3)


def test_every_measure_falls_with_noise(packages, speech):
    found = np.array([speech_quality(speech, noisy(speech, level), RATE) for level in (0.0, 1e-4, 1e-3, 1e-2)])
    assert np.all(np.diff(found, axis=0) < 0)


def test_measures_are_the_packages_own(packages, speech):
    pesq, pystoi = packages
    estimate = noisy(speech, 0.003)
    found = speech_quality(speech, estimate, RATE)
    assert found.pesq_wideband == pytest.approx(pesq.pesq(RATE, speech, estimate, "wb"), rel=1e-4)
    assert found.pesq_narrowband == pytest.approx(pesq.pesq(RATE, speech, estimate, "nb"), rel=1e-4)
    assert found.stoi == pytest.approx(pystoi.stoi(speech, estimate, RATE), rel=1e-6)
    assert found.estoi == pytest.approx(pystoi.stoi(speech, estimate, RATE, extended=True), rel=1e-6)
    assert found.pesq_wideband < found.pesq_narrowband - 0.1 and found.stoi > found.estoi + 0.01


def test_level_does_not_matter(packages, speech):
    estimate = noisy(speech, 0.003)
    found = speech_quality(1e-9 * speech, -1e-12 * estimate, RATE)
    np.testing.assert_allclose(found, speech_quality(speech, -estimate, RATE), rtol=1e-3)


def test_other_rates(packages, speech):
    estimate = noisy(speech, 0.003)
    expected = speech_quality(speech, estimate, RATE)
    high = speech_quality(*(soxr.resample(x, RATE, 48000) for x in (speech, estimate)), np.int64(48000))
    np.testing.assert_allclose(high, expected, atol=0.05)
    low = [soxr.resample(x, RATE, 8000) for x in (speech, estimate)]
    telephone = speech_quality(*low, 8000)
    assert np.isnan(telephone.pesq_wideband)
    assert telephone.pesq_narrowband == pytest.approx(packages[0].pesq(8000, *low, "nb"), rel=1e-4)
    assert telephone.pesq_narrowband == pytest.approx(expected.pesq_narrowband, abs=0.3)


@pytest.mark.parametrize(
    ("break_it", "rate", "message"),
    [
        (lambda r, e: (r[1:], e), RATE, r"\(31999,\) and \(32000,\)"),
        (lambda r, e: (r[None], e[None]), RATE, r"shape \(samples,\), got \(1, 32000\)"),
        (lambda r, e: (np.resize(r, 31 * RATE), np.resize(e, 31 * RATE)), RATE, "reference must last 30.0 s or less"),
        (lambda r, e: (r[:6399], e[:6399]), RATE, "reference must last 0.4 s or more, got 6399 samples at 16000 Hz"),
        (lambda r, e: (r * np.inf, e), RATE, "reference must be finite"),
        (lambda r, e: (r, e * np.nan), RATE, "estimate must be finite"),
        (lambda r, e: (0 * r, e), RATE, "reference must not be silent"),
        (lambda r, e: (r, 0 * e), RATE, "estimate must not be silent"),
        (lambda r, e: (r, e), 7999, "sample_rate must be 8000 Hz or more, got 7999"),
        (lambda r, e: (r, e), 0, "sample_rate must be a positive integer"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_signals_are_refused(speech, break_it, rate, message):
    with pytest.raises(InputError, match=message):
        speech_quality(*break_it(speech, speech), rate)


def test_too_little_speech_is_refused(packages, speech):
    click = np.eye(1, RATE, RATE - 5)[0]
    with pytest.raises(InputError, match="reference must hold speech: PESQ"):
        speech_quality(click, click, RATE)
    syllable = np.where(np.arange(len(speech)) // 3200 == 3, speech, 0)
    with pytest.raises(InputError, match=r"reference must hold 0\.4 s of sound.* STOI"):
        speech_quality(syllable, syllable, RATE)


def test_missing_packages_are_named(monkeypatch, speech):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(InputError, match=r'pip install "vbss\[metrics\]"'):
        speech_quality(speech, speech, RATE)
