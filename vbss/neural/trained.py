"""A separator together with what it was trained on: what `vbss train` keeps in a file."""

import equinox as eqx

from vbss.audio import STFT
from vbss.networks import Separator


class TrainedSeparator(eqx.Module):
    """A network that separates one microphone, and the transform that it knows; see `vbss.save` and `vbss.load`.

    Attributes:
        network: as it was best.
        stft: the transform, at the rate of the sound that the network knows.
    """

    network: Separator
    stft: STFT

    @property
    def num_classes(self) -> int:
        """K, how many sources it can tell apart."""
        return self.network.num_classes

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.stft.sample_rate
