"""Diffuse whitening and the choice of active frames."""

import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio import active_frames, diffuse_whitening

_ANGLE = 2 * np.pi * np.arange(4) / 4
POSITIONS = 0.04 * np.stack([np.cos(_ANGLE), np.sin(_ANGLE), 0 * _ANGLE], -1)


@pytest.mark.parametrize("hertz", [0.0, 300.0, 4000.0])
def test_a_simulated_diffuse_field_becomes_white(hertz):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = np.exp(2j * np.pi * hertz / 343.0 * directions @ POSITIONS.T)
    coherence = (waves[:, :, None] * waves[:, None].conj()).mean(0)
    noisy = (coherence + 0.1 * np.eye(4)) / 1.1
    whitening = np.asarray(diffuse_whitening(POSITIONS, jnp.asarray([hertz])))[0]
    np.testing.assert_allclose(whitening @ noisy @ whitening.T, np.eye(4), atol=0.03)


def test_whitening_keeps_the_precision_and_is_symmetric():
    whitening = diffuse_whitening(POSITIONS, jnp.linspace(0.0, 8000.0, 9).astype(jnp.float32))
    assert whitening.dtype == jnp.float32 and whitening.shape == (9, 4, 4)
    np.testing.assert_allclose(whitening, jnp.swapaxes(whitening, 1, 2), atol=1e-6)


def test_pauses_are_left_out_whatever_the_level():
    rng = np.random.default_rng(1)
    mixture = rng.normal(size=(84, 6, 2)) + 1j * rng.normal(size=(84, 6, 2))
    mixture[:10] = 0  # digital silence
    mixture[10:20] *= 0.03  # 30 dB down
    mixture[20:30] *= 0.1  # 20 dB down: soft speech
    expected = np.arange(84) >= 20
    for level in (1.0, 1e-6, 1e5):
        np.testing.assert_array_equal(active_frames(jnp.asarray(mixture * level)), expected)


def test_a_click_does_not_silence_the_rest():
    rng = np.random.default_rng(2)
    mixture = rng.normal(size=(400, 6, 2)) + 1j * rng.normal(size=(400, 6, 2))
    mixture[7] *= 1000
    assert active_frames(jnp.asarray(mixture)).all()


def test_the_slam_of_a_door_does_not_silence_the_rest():
    rng = np.random.default_rng(3)
    mixture = rng.normal(size=(312, 6, 2)) + 1j * rng.normal(size=(312, 6, 2))
    mixture[100:112] *= 10**1.5
    assert active_frames(jnp.asarray(mixture)).all()


def test_one_frame_is_active():
    assert active_frames(jnp.ones((1, 3, 2), complex)).tolist() == [True]


def test_silence_alone_has_no_active_frame():
    assert not active_frames(jnp.zeros((5, 3, 2), complex)).any()
