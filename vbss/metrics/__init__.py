"""How well sources were separated and located."""

from vbss.metrics.localisation import angular_error as angular_error
from vbss.metrics.separation import SeparationRatios as SeparationRatios
from vbss.metrics.separation import pairwise_ratios as pairwise_ratios
from vbss.metrics.separation import separation_ratios as separation_ratios
from vbss.metrics.separation import signal_to_distortion_ratio as signal_to_distortion_ratio
