"""Whitening by the recording's own covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio.sphering import sphering


def _recording(seed=0, frames=400, frequencies=5, size=3):
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(2, frames, frequencies, size))
    mixing = rng.normal(size=(2, frequencies, size, size))
    return np.einsum("fmn,tfn->tfm", mixing[0] + 1j * mixing[1], white[0] + 1j * white[1])


def _covariance(spectrogram):
    return np.einsum("tfm,tfn->fmn", spectrogram, spectrogram.conj())


def test_a_recording_becomes_white_but_for_the_white_share():
    mixture = _recording()
    whitening = np.asarray(sphering(jnp.asarray(mixture)))
    covariance = _covariance(mixture)
    level = np.trace(covariance, axis1=1, axis2=2).real / 3
    loaded = (covariance / level[:, None, None] + 0.01 * np.eye(3)) / 1.01
    white = whitening @ loaded @ whitening.conj().transpose(0, 2, 1)
    np.testing.assert_allclose(white, np.broadcast_to(np.eye(3), white.shape), atol=1e-10)
    np.testing.assert_array_equal(whitening, np.tril(whitening))


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.complex128])
@pytest.mark.parametrize("level", [1e-30, 1.0, 1e30])
def test_the_level_does_not_count(level, dtype):
    mixture = _recording()
    whitening = jax.jit(sphering)(jnp.asarray(level * mixture, dtype))
    assert whitening.dtype == dtype
    np.testing.assert_allclose(whitening, sphering(jnp.asarray(mixture)), rtol=2e-4, atol=2e-4)


def test_equal_channels_few_frames_and_silence_are_borne():
    mixture = _recording(frames=2).astype(np.complex64)
    mixture[:, 1] = mixture[:, 1, :1]
    mixture[:, 2] = 0
    whitening = np.asarray(sphering(jnp.asarray(mixture)))
    assert np.isfinite(whitening).all()
    np.testing.assert_allclose(whitening[2], np.eye(3))
    # What all microphones hear alike is taken down, and what is in only one is raised by no more than the white share.
    assert np.linalg.norm(whitening[1], 2) < 1.01 * (1.01 / 0.01) ** 0.5
