"""Scenes with known truth, made without any data."""

from vbss.scenes.room import Scene as Scene
from vbss.scenes.room import demo_scene as demo_scene
from vbss.scenes.room import simulate_room as simulate_room
from vbss.scenes.speech_like import HIGH_VOICE as HIGH_VOICE
from vbss.scenes.speech_like import LOW_VOICE as LOW_VOICE
from vbss.scenes.speech_like import Speaker as Speaker
from vbss.scenes.speech_like import speech_like as speech_like
