"""How well sources were separated and located, and how speech sounds."""

from vbss.metrics.localisation import angular_error as angular_error
from vbss.metrics.separation import SeparationRatios as SeparationRatios
from vbss.metrics.separation import pairwise_ratios as pairwise_ratios
from vbss.metrics.separation import separation_ratios as separation_ratios
from vbss.metrics.separation import signal_to_distortion_ratio as signal_to_distortion_ratio
from vbss.metrics.speech import SpeechQuality as SpeechQuality
from vbss.metrics.speech import speech_quality as speech_quality
