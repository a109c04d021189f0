"""Speech enhancement, and separation of known voices, by deep generative models."""

from vbss.enhancement.algorithms import ALGORITHMS as ALGORITHMS
from vbss.enhancement.inference import enhance as enhance
from vbss.enhancement.inference import separate_voices as separate_voices
from vbss.enhancement.pretrained import pretrained_speech as pretrained_speech
from vbss.enhancement.results import KnownSources as KnownSources
from vbss.enhancement.speakers import train_speaker as train_speaker
from vbss.enhancement.trained import TrainedSpeech as TrainedSpeech
from vbss.enhancement.training import SpeechTraining as SpeechTraining
from vbss.enhancement.training import train_on_mixtures as train_on_mixtures
from vbss.enhancement.training import train_speech as train_speech
from vbss.enhancement.voices import EstimatedVoices as EstimatedVoices
from vbss.enhancement.voices import TrainedVoice as TrainedVoice
from vbss.enhancement.voices import VoiceTraining as VoiceTraining
from vbss.enhancement.voices import estimate_voices as estimate_voices
from vbss.enhancement.voices import train_voice as train_voice
