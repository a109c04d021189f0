"""Speakers whose voices are known: one pass of autoencoders of mixtures, and what inference makes of a better start."""

import inspect
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import vbss
from vbss.audio import STFT, Recording, write_recording
from vbss.enhancement import TrainedSpeech, estimate_voices, train_on_mixtures, train_voice
from vbss.errors import InputError
from vbss.metrics import pairwise_ratios
from vbss.networks.codes import CodeNetwork
from vbss.scenes import HIGH_VOICE, LOW_VOICE, SpeechCorpus, speech_like
from vbss.training import SpeechSpectra, VoiceMixtures

RATE = 8000
TRANSFORM = STFT.init(RATE, 0.032, 0.016)
SETTINGS = vbss.TrainingSettings(batch_size=4, max_epochs=15, learning_rate=0.01)
VOICES = {"low": LOW_VOICE, "high": HIGH_VOICE}


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """What each of two speakers says, for training."""
    folder, found = tmp_path_factory.mktemp("voices"), {}
    for seed, (name, voice) in enumerate(VOICES.items()):
        (folder / name).mkdir()
        write_recording(folder / name / "x.wav", speech_like(voice, 8.0, RATE, seed=seed).astype(np.float32), RATE)
        corpus = SpeechCorpus(folder, {name: (f"{name}/x.wav",)})
        found[name] = SpeechSpectra(corpus, stft=TRANSFORM, num_frames=16)
    return found


@pytest.fixture(scope="module")
def mixed():
    sources = np.stack([speech_like(voice, 1.0, RATE, seed=7 + n) for n, voice in enumerate(VOICES.values())])
    sources /= sources.std(1, keepdims=True)
    return sources, Recording(sources.sum(0)[None].astype(np.float32), RATE)


@pytest.fixture(scope="module")
def speakers(speech):
    low, high = speech["low"], speech["high"]
    options = {"hidden_sizes": (16,), "num_codes": 4, "warm_up": 2.0, "settings": SETTINGS}
    return [vbss.train_speaker(voice, other, **options) for voice, other in ((low, high), (high, low))]


@pytest.fixture(scope="module")
def voices(speech):
    found = []
    for voice, other in (("low", "high"), ("high", "low")):
        corpora = [VoiceMixtures(speech[voice], speech[other], snr=(0.0, 0.0), seed=seed) for seed in (0, 1)]
        found.append(train_voice(*corpora, hidden_sizes=(16,), num_codes=4, warm_up=2.0, settings=SETTINGS).voice)
    return found


def mean_sdr(sources, estimates):
    return float(np.mean(np.diag(pairwise_ratios(sources, np.asarray(estimates, float))[0])))


def test_autoencoders_of_mixtures_hear_voices(voices, mixed):
    sources, recording = mixed
    before = mean_sdr(sources, np.repeat(recording.samples, 2, 0))
    found = estimate_voices(recording, voices)
    assert found.sources.shape == (2, RATE) and found.sources.dtype == np.float32
    assert mean_sdr(sources, found.sources) > before + 1.5  # 0.3 untrained
    np.testing.assert_allclose(found.sources.sum(0), recording.samples[0], atol=1e-4)
    assert found.code_variance.shape == (2,) and (found.code_variance > 0).all()
    surer = [
        estimate_voices(Recording((sources[:1] + level * sources[1:]).astype(np.float32), RATE), voices[:1]).variance[0]
        for level in (1.0, 0.5, 0.1)
    ]
    assert surer[0] > surer[1] > surer[2] > 0  # the variance of the first falls as the other does
    swapped = estimate_voices(recording, voices[::-1])
    np.testing.assert_allclose(swapped.sources[::-1], found.sources, atol=1e-5)
    alone = estimate_voices(recording, voices, masks=False)
    assert np.abs(alone.sources.sum(0) - recording.samples[0]).max() > 0.1
    for level, dtype in ((100.0, np.float32), (1e-25, np.float32), (1e200, np.float64)):
        other = estimate_voices(Recording(level * recording.samples.astype(dtype), RATE), voices)
        np.testing.assert_allclose(other.sources / level, found.sources, rtol=1e-3, atol=1e-4)


def test_several_frames_are_seen_together(speech, mixed):
    corpora = [VoiceMixtures(speech["low"], speech["high"], context=16, seed=seed) for seed in (0, 1)]
    few = vbss.TrainingSettings(batch_size=4, max_epochs=1)
    voice = train_voice(*corpora, hidden_sizes=(8,), num_codes=2, settings=few).voice
    assert voice.context == 16 and voice.decoder.num_frequencies == 16 * 129
    recording = Recording(mixed[1].samples[:, :7000], RATE)
    num_frames = len(TRANSFORM.forward(jnp.asarray(recording.samples[0])))
    assert num_frames % 16  # the last frames are not as many
    assert estimate_voices(recording, [voice, voice]).sources.shape == (2, 7000)


@pytest.mark.parametrize("algorithm", ["encoder", "point", "mcem", "langevin", "vem"])
def test_speakers_models_separate(speakers, mixed, algorithm):
    sources, recording = mixed
    before = mean_sdr(sources, np.repeat(recording.samples, 2, 0))
    found = vbss.separate_voices(recording, [s.speech for s in speakers], algorithm=algorithm, max_steps=10)
    assert found.sources.shape == (2, 1, RATE) and found.expected_sdr.shape == (2, 1)
    np.testing.assert_allclose(found.sources.sum(0), recording.samples, atol=1e-4)
    assert mean_sdr(sources, found.sources[:, 0]) > before + 3
    (solution,) = found.solutions[0]
    np.testing.assert_array_equal(solution.posterior["activations"], 1)  # loudness is in the codes
    assert solution.num_steps == (1 if algorithm == "encoder" else 10)
    first = vbss.separate_voices(recording, [s.speech for s in speakers], algorithm="encoder")
    assert (np.abs(found.sources - first.sources).max() > 1e-3) == (algorithm != "encoder")  # it went on from there
    if algorithm in ("point", "vem"):
        assert solution.elbo[-1] > solution.elbo[0]


def test_the_encoder_learns_mixtures_and_the_decoder_stays(speech, tmp_path):
    options = {"hidden_sizes": (16,), "num_codes": 4, "settings": SETTINGS}
    (heard, kept), others = speech["low"].held_out(10), speech["high"]
    alone = vbss.train_speech(heard, kept, **options).speech
    corpora = VoiceMixtures(heard, others), VoiceMixtures(kept, others, seed=1)
    found, training = train_on_mixtures(alone, *corpora, settings=SETTINGS, folder=tmp_path)
    bounds = [entry["validation_bound"] for entry in training.history]
    assert max(bounds) > bounds[0]
    assert training.latest.parameters == {}
    for ours, theirs in zip(training.model.decoder.layers.weights, alone.decoder.layers.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (np.asarray(found.encoder.layers.weights[0]) != np.asarray(alone.encoder.layers.weights[0])).any()
    other = vbss.train_speech(heard, kept, **options, start=alone).speech
    with pytest.raises(InputError, match="no training of this model"):
        train_on_mixtures(other, *corpora, settings=SETTINGS, folder=tmp_path)
    other_encoder = TrainedSpeech(other.encoder, alone.decoder, alone.stft)
    with pytest.raises(InputError, match="began with other networks"):
        train_on_mixtures(other_encoder, *corpora, settings=SETTINGS, folder=tmp_path)


def test_more_epochs_are_of_the_second_training(speech, tmp_path):
    options = {"hidden_sizes": (8,), "num_codes": 2, "folder": tmp_path}
    for epochs in (1, 2):
        settings = vbss.TrainingSettings(batch_size=4, max_epochs=epochs)
        _, training = vbss.train_speaker(speech["low"], speech["high"], settings=settings, **options)
        assert training.epoch == epochs
    assert len((tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()) == 1


def test_training_goes_on_from_what_it_began_with_alone(speech, tmp_path):
    (heard, kept), settings = speech["low"].held_out(10), vbss.TrainingSettings(batch_size=4, max_epochs=1)
    first, second = (
        vbss.train_speech(heard, kept, hidden_sizes=(8,), num_codes=2, settings=replace(settings, seed=seed)).speech
        for seed in (0, 1)
    )
    for _ in range(2):
        _, training = vbss.train_speech(heard, kept, start=first, settings=settings, folder=tmp_path)
        assert training.epoch == 1
    for start in (second, None):
        with pytest.raises(InputError, match="began with other networks"):
            options = {"hidden_sizes": (8,), "num_codes": 2} if start is None else {"start": start}
            vbss.train_speech(heard, kept, settings=settings, folder=tmp_path, **options)


def test_wrong_arguments_are_said(speech, voices, speakers, mixed):
    _, recording = mixed
    low, known = speech["low"], [speaker.speech for speaker in speakers]
    network = CodeNetwork((known[0].encoder,), ("codes",))
    separate, estimate = inspect.unwrap(vbss.separate_voices), inspect.unwrap(estimate_voices)
    for call, message in (
        (lambda: separate(recording, known[:1]), "two networks"),
        (lambda: separate(recording, [known[0], known[0]]), "of different speakers"),
        (lambda: separate(recording, voices), "trained must be a TrainedSpeech"),
        (lambda: separate(recording, known, algorithm="magic"), "algorithm must be one of"),
        (lambda: separate(recording, known, algorithm="frozen"), "for one source in noise"),
        (lambda: estimate(recording, known), "networks of voices"),
        (lambda: estimate(recording, []), "one at least"),
        (lambda: estimate(Recording(np.repeat(recording.samples, 2, 0), RATE), voices), "one channel"),
        (lambda: inspect.unwrap(vbss.train_speaker)(low, None), "others must be SpeechSpectra"),
        (lambda: inspect.unwrap(vbss.train_speaker)(low, low, settings={}), "settings must be a vbss.TrainingSettings"),
        (lambda: inspect.unwrap(vbss.train_speech)(low, low, hidden_sizes=16), "hidden_sizes must be a sequence"),
        (lambda: inspect.unwrap(vbss.train_speech)(low, low, num_codes=0), "num_codes must be a whole number"),
        (lambda: inspect.unwrap(vbss.train_speech)(low, low, warm_up=-1.0), "warm_up must be a number, 0 or more"),
        (lambda: inspect.unwrap(train_voice)(low, low), "corpus must be VoiceMixtures"),
        (lambda: inspect.unwrap(VoiceMixtures.__init__)(object(), low, None), "others must be SpeechSpectra"),
        (lambda: inspect.unwrap(vbss.train_speech)(low, low, start=vbss.pretrained_speech()), "transform"),
        (lambda: vbss.train(vbss.models.SpectralVAE(known[0].decoder), vbss.AmortisedNormal(network), [low[0]],
                            [low[0]], frozen=("rate",)), "frozen must be one of"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            call()
