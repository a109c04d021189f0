"""Speech enhancement, and separation of known voices, by deep generative models."""

from vbss.enhancement.algorithms import ALGORITHMS as ALGORITHMS
from vbss.enhancement.inference import enhance as enhance
from vbss.enhancement.inference import separate_voices as separate_voices
from vbss.enhancement.pretrained import pretrained_speech as pretrained_speech
from vbss.enhancement.results import KnownSources as KnownSources
from vbss.enhancement.trained import TrainedSpeech as TrainedSpeech
from vbss.enhancement.training import SpeechTraining as SpeechTraining
from vbss.enhancement.training import train_speech as train_speech
