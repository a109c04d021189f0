"""How well sources were separated and located."""

from vbss.metrics.localisation import angular_error as angular_error
from vbss.metrics.separation import signal_to_distortion_ratio as signal_to_distortion_ratio
