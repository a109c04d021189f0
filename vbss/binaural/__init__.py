"""Two ears: calibration, localisation and separation of binaural recordings."""

from vbss.binaural.calibration import Calibration as Calibration
from vbss.binaural.calibration import calibrate as calibrate
from vbss.binaural.calibration import calibrate_from_cues as calibrate_from_cues
from vbss.binaural.calibration import calibrate_from_recordings as calibrate_from_recordings
from vbss.binaural.calibration import fit_maps as fit_maps
from vbss.binaural.calibration import held_out_scores as held_out_scores
from vbss.binaural.messl import infer_messl as infer_messl
from vbss.binaural.results import BinauralLocalization as BinauralLocalization
from vbss.binaural.results import BinauralSeparation as BinauralSeparation
from vbss.binaural.settings import BinauralSettings as BinauralSettings
from vbss.binaural.vessl import VESSLSettings as VESSLSettings
from vbss.binaural.vessl import infer_vessl as infer_vessl
from vbss.binaural.whole import localize_binaural as localize_binaural
from vbss.binaural.whole import separate_binaural as separate_binaural
