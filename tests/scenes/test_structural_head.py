import numpy as np

from vbss.scenes import structural_head


def test_nearer_ears_hear_earlier_and_louder():
    azimuths = np.radians(np.array([90.0, 45.0, 0.0, -45.0, -90.0]))
    head = structural_head(azimuths, np.zeros(5))
    assert head.responses.shape == (5, 2, 128)
    delays = head.interaural_delays
    assert (np.diff(delays) < 0).all()
    # Between Woodworth's law, of high frequencies, and that of low ones (Kuhn, 1977).
    assert 0.0875 / 343 * (1 + np.pi / 2) < delays[0] < 0.0875 / 343 * 3 + 2e-5
    levels = 10 * np.log10((head.responses**2).sum(-1))
    assert (np.diff(levels[:, 0] - levels[:, 1]) < 0).all()
    np.testing.assert_allclose(delays[2], 0, atol=2e-5)


def test_heights_sound_different_in_the_middle():
    head = structural_head(np.zeros(3), np.radians(np.array([-30.0, 0.0, 30.0])))
    spectra = 20 * np.log10(np.abs(np.fft.rfft(head.responses)))
    differences = spectra[:, 0] - spectra[:, 1]
    assert np.abs(np.diff(differences, axis=0)).max(-1).min() > 1
