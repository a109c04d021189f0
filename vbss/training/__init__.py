"""Training networks for amortised inference on corpora."""

from vbss.training.batches import Corpus as Corpus
from vbss.training.batches import TrainingDataWarning as TrainingDataWarning
from vbss.training.recorded import RecordedMixtures as RecordedMixtures
from vbss.training.settings import TrainingSettings as TrainingSettings
from vbss.training.simulated import SimulatedMixtures as SimulatedMixtures
from vbss.training.spatial import MOST_SOURCES as MOST_SOURCES
from vbss.training.spatial import SpatialBound as SpatialBound
from vbss.training.spatial import spatial_model as spatial_model
from vbss.training.speech import SpeechSpectra as SpeechSpectra
from vbss.training.state import Training as Training
from vbss.training.train import train as train
from vbss.training.voices import VoiceMixtures as VoiceMixtures
