"""Speech is learnt and taken out of noise, by every algorithm, at any rate and level, in blocks and channels."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from four_speakers import write_speakers

import vbss
from vbss.audio import STFT, Recording
from vbss.enhancement import ALGORITHMS, inference
from vbss.errors import InputError
from vbss.metrics import separation_ratios
from vbss.scenes import HIGH_VOICE, SpeechCorpus, speech_like
from vbss.training import SpeechSpectra

RATE = 8000
TRANSFORM = STFT.init(RATE, 0.032, 0.016)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    speech = SpeechCorpus.read(write_speakers(tmp_path_factory.mktemp("speech")))
    heard, kept = speech.held_out(4, at_least=1)
    return tuple(SpeechSpectra(corpus, stft=TRANSFORM, num_frames=16) for corpus in (heard, kept))


@pytest.fixture(scope="module")
def training(corpora):
    settings = vbss.TrainingSettings(batch_size=4, max_epochs=12, learning_rate=0.01)
    return vbss.train_speech(*corpora, hidden_sizes=(16,), num_codes=4, warm_up=2.0, settings=settings)


@pytest.fixture(scope="module")
def noisy():
    speech = speech_like(HIGH_VOICE, 1.0, RATE, seed=5)
    noise = np.random.default_rng(0).standard_normal(RATE)
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2))
    return speech, Recording((speech + noise)[None].astype(np.float32), RATE)


def gain(speech, recording, found):
    before, after = (separation_ratios(speech[None], x[None].astype(float)).si_sdr[0] for x in (recording, found))
    return after - before


def test_training_raises_the_bound(training):
    speech, progress = training
    bounds = [entry["validation_bound"] for entry in progress.history]
    assert bounds[-1] > bounds[0] and speech.sample_rate == RATE
    assert speech.decoder.num_frequencies == len(TRANSFORM.frequencies)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_enhances(training, noisy, algorithm):
    speech, recording = noisy
    found = vbss.enhance(recording, training.speech, algorithm=algorithm, num_noise_spectra=2, max_steps=40)
    assert found.speech.shape == found.noise.shape == (1, RATE) and found.speech.dtype == np.float32
    np.testing.assert_allclose(found.speech + found.noise, recording.samples, atol=1e-5)
    # An encoder that learnt so little is tuned to noise as gladly as to speech.
    assert gain(speech, recording.samples[0], found.speech[0]) > {"encoder": 0.5, "frozen": 0.5, "vem": 0}.get(
        algorithm, 2
    )
    assert found.expected_sdr.shape == (1, 1) and len(found.solutions) == len(found.solutions[0]) == 1
    again = vbss.enhance(recording, training.speech, algorithm=algorithm, num_noise_spectra=2, max_steps=40)
    np.testing.assert_array_equal(again.speech, found.speech)


def test_a_tuned_encoder_is_not_shown_steady_noise():
    rate = 16000
    speech, white = speech_like(HIGH_VOICE, 1.0, rate, seed=5), np.random.default_rng(0).standard_normal(rate)
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.maximum(np.fft.rfftfreq(rate, 1 / rate), 50)), rate)
    noisy = speech + pink * np.sqrt(np.mean(speech**2) / np.mean(pink**2))
    recording = Recording(noisy[None].astype(np.float32), rate)
    found = vbss.enhance(recording, vbss.pretrained_speech(), algorithm="vem", num_noise_spectra=4, max_steps=60)
    assert gain(speech, recording.samples[0], found.speech[0]) > 9  # 6 to 7 dB if it were


def test_channels_rates_and_levels(training, noisy):
    _, recording = noisy
    options = {"algorithm": "encoder", "num_noise_spectra": 2, "max_steps": 5}
    found = vbss.enhance(recording, training.speech, **options)
    faint = Recording(1e-6 * np.repeat(recording.samples, 2, 0), RATE)
    two = vbss.enhance(faint, training.speech, **options)
    assert two.speech.shape == (2, RATE) and two.expected_sdr.shape == (1, 2)
    np.testing.assert_allclose(1e6 * two.speech[0], found.speech[0], atol=1e-4 * np.abs(found.speech).max())
    dead = Recording(np.concatenate([recording.samples, 0 * recording.samples]), RATE)
    found_of_dead = vbss.enhance(dead, training.speech, **options)
    assert not found_of_dead.speech[1].any() and found_of_dead.solutions[1] == ()
    assert found_of_dead.warnings == found.warnings  # silence says nothing of how good the rest is
    fast = Recording(np.repeat(recording.samples, 2, 1), 2 * RATE)
    assert vbss.enhance(fast, training.speech, **options).speech.shape == (1, 2 * RATE)


def test_offsets_are_removed_and_clipping_is_told(training, noisy):
    samples = noisy[1].samples
    options = {"algorithm": "encoder", "num_noise_spectra": 2, "max_steps": 5}
    found = vbss.enhance(Recording(samples, RATE), training.speech, **options)
    limit = 0.5 * np.abs(samples).max()
    moved = np.concatenate([samples + 3, np.clip(samples, -limit, limit)])
    both = vbss.enhance(Recording(moved, RATE), training.speech, **options)
    fast = np.repeat(samples, 2, 1)  # what is resampled has no steps at its ends
    dead = Recording(np.concatenate([fast + 3, np.full_like(fast, 0.5)]), 2 * RATE)
    resampled = [vbss.enhance(x, training.speech, **options) for x in (dead, Recording(fast, 2 * RATE))]
    np.testing.assert_allclose(
        resampled[0].speech[0], resampled[1].speech[0], atol=2e-2 * np.abs(resampled[1].speech).max()
    )
    assert resampled[0].solutions[1] == () and not resampled[0].speech[1].any()
    np.testing.assert_allclose(both.speech[0], found.speech[0], atol=2e-2 * np.abs(found.speech).max())
    told = [warning for warning in both.warnings if warning.startswith("channel")]
    assert [text.split(" (")[0] for text in told] == ["channel 0", "channel 1"]
    assert "constant offset" in told[0] and "It was used as it is" in told[1]


@pytest.mark.parametrize("algorithm", ["vem", "mcem"])
def test_digital_silence_says_nothing_of_the_noise(algorithm):
    rate = 16000
    speech, noise = speech_like(HIGH_VOICE, 1.0, rate, seed=5), np.random.default_rng(0).standard_normal(rate)
    heard = speech + noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2))
    padded = Recording(np.pad(heard, rate)[None].astype(np.float32), rate)
    found = vbss.enhance(padded, vbss.pretrained_speech(), algorithm=algorithm, num_noise_spectra=4, max_steps=40)
    assert gain(speech, heard, found.speech[0, rate : 2 * rate]) > 8  # none, where silence is taken for steady noise
    assert any("digital silence" in warning for warning in found.warnings)


@pytest.mark.parametrize("algorithm", ["langevin", "mcem"])
def test_a_pause_of_digital_silence_stays_silent(training, noisy, algorithm):
    samples = noisy[1].samples.copy()
    samples[:, 3000:5000] = 0
    options = {"algorithm": algorithm, "num_noise_spectra": 2, "max_steps": 20}
    found = vbss.enhance(Recording(samples, RATE), training.speech, **options)
    assert found.solutions[0][0].status is vbss.Status.max_steps and np.isfinite(found.expected_sdr).all()
    assert not found.speech[0, 3300:4700].any()


@pytest.mark.parametrize("algorithm", ["vem", "mcem", "langevin"])
def test_another_recording_of_the_same_length_compiles_nothing(training, noisy, algorithm, caplog):
    other = Recording(noisy[1].samples[:, ::-1].copy(), RATE)
    told = []
    for recording, options in ((noisy[1], {"max_steps": 2}), (other, {"max_steps": 4, "seed": 1})):
        caplog.clear()
        with jax.log_compiles():
            vbss.enhance(recording, training.speech, algorithm=algorithm, num_noise_spectra=3, **options)
        told.append([record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()])
    assert told[0] and not told[1]


def test_an_interruption_ends_it(training, noisy):
    def interrupt(*told):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vbss.enhance(noisy[1], training.speech, algorithm="encoder", num_noise_spectra=2, progress=interrupt)


def test_long_recordings_are_taken_in_blocks(training, noisy, monkeypatch):
    monkeypatch.setattr(inference, "_BLOCK", 1.0)
    monkeypatch.setattr(inference, "_OVERLAP", 0.25)
    speech, recording = np.tile(noisy[0], 2), Recording(np.tile(noisy[1].samples, 2), RATE)
    found = vbss.enhance(recording, training.speech, algorithm="mcem", num_noise_spectra=2, max_steps=40)
    assert len(found.solutions[0]) == 3 and found.speech.shape == (1, 2 * RATE)
    assert gain(speech, recording.samples[0], found.speech[0]) > 1
    silent = Recording(np.concatenate([recording.samples, np.zeros((1, 3 * RATE), np.float32)], 1), RATE)
    paused = vbss.enhance(silent, training.speech, algorithm="mcem", num_noise_spectra=2, max_steps=2)
    assert len(paused.solutions[0]) == 3 and not paused.speech[0, -RATE:].any()
    figure = vbss.plots.plot_enhancement(recording, found)
    titles = [axis.get_title("left") for axis in figure.axes if axis.get_title("left")]
    assert titles == ["recording", "speech", "noise"]
    with pytest.raises(InputError, match="recording has shape"):
        vbss.plots.plot_enhancement(Recording(recording.samples[:, 1:], RATE), found)


def test_recurrent_networks_train_and_enhance(corpora, noisy):
    settings = vbss.TrainingSettings(batch_size=4, max_epochs=1)
    speech, _ = vbss.train_speech(*corpora, architecture="recurrent", hidden_sizes=(4,), num_codes=2, settings=settings)
    found = vbss.enhance(noisy[1], speech, algorithm="mcem", num_noise_spectra=2, max_steps=2)
    assert np.isfinite(found.speech).all()
    codes = jnp.zeros((5, 2), jnp.float32)
    moved = speech.decoder(codes.at[4].set(1)) - speech.decoder(codes)
    assert (jnp.abs(moved[0]) > 0).any()  # each frame depends on all codes
    with pytest.raises(InputError, match="one number"):
        vbss.train_speech(*corpora, architecture="recurrent", hidden_sizes=(4, 4))


def test_it_is_stored_and_one_comes_with_vbss(training, noisy, tmp_path):
    vbss.save(tmp_path / "speech.vbss", training.speech)
    options = {"algorithm": "encoder", "num_noise_spectra": 2, "max_steps": 2}
    found = vbss.enhance(noisy[1], vbss.load(tmp_path / "speech.vbss"), **options)
    np.testing.assert_array_equal(found.speech, vbss.enhance(noisy[1], training.speech, **options).speech)
    pretrained = vbss.pretrained_speech()
    assert pretrained.sample_rate == 16000 and pretrained.decoder.num_codes == 32


def test_what_cannot_be_enhanced_is_said(training, noisy):
    enhance, recording = inspect.unwrap(vbss.enhance), noisy[1]
    broken = eqx.tree_at(lambda s: s.decoder.layers.biases[-1], training.speech, jnp.full(129, jnp.nan, jnp.float32))
    for arguments, options, message in (
        ((recording, training.speech), {"algorithm": "magic"}, "algorithm must be one of langevin"),
        ((recording, training.speech), {"num_noise_spectra": 0}, "num_noise_spectra"),
        ((recording, training.speech), {"max_steps": 0}, "max_steps"),
        ((recording, training.speech), {"seed": -1}, "seed"),
        ((recording, training), {}, "trained must be a TrainedSpeech"),
        ((recording, broken), {}, "infinite or nan"),
        (([], training.speech), {}, "recording must be"),
        ((Recording(recording.samples, 4000), training.speech), {}, "8000 Hz or more"),
        ((Recording(recording.samples[:, :100], RATE), training.speech), {}, "must last 0.032 s"),
        ((Recording(np.full((2, RATE), 0.3, np.float32), RATE), training.speech), {}, "every channel is constant"),
    ):
        with pytest.raises(InputError, match=message):
            enhance(*arguments, **options)
