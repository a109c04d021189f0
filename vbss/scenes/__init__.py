"""Scenes with known truth: of one's own speech, or made without any data."""

from vbss.scenes.binaural import BinauralCondition as BinauralCondition
from vbss.scenes.binaural import BinauralScene as BinauralScene
from vbss.scenes.binaural import random_binaural_scene as random_binaural_scene
from vbss.scenes.corpus import SpeechCorpus as SpeechCorpus
from vbss.scenes.head_files import read_calibration_recordings as read_calibration_recordings
from vbss.scenes.heads import HeadResponses as HeadResponses
from vbss.scenes.measured import MeasuredResponses as MeasuredResponses
from vbss.scenes.mixtures import Condition as Condition
from vbss.scenes.mixtures import random_scene as random_scene
from vbss.scenes.room import Scene as Scene
from vbss.scenes.room import demo_scene as demo_scene
from vbss.scenes.room import simulate_room as simulate_room
from vbss.scenes.speech_like import HIGH_VOICE as HIGH_VOICE
from vbss.scenes.speech_like import LOW_VOICE as LOW_VOICE
from vbss.scenes.speech_like import Speaker as Speaker
from vbss.scenes.speech_like import speech_like as speech_like
from vbss.scenes.structural_head import structural_head as structural_head
