import pytest
from two_voices import CUES, level_head, voices

from vbss.binaural import calibrate


@pytest.fixture(scope="session")
def calibration():
    """Azimuths of a head, by three and by six pieces."""
    return calibrate(level_head(), CUES, num_pieces=[3, 6], seconds=0.3)


@pytest.fixture(scope="session")
def images():
    return voices()[0]


@pytest.fixture(scope="session")
def recording():
    return voices()[1]
