"""Sound in, sound out: time-frequency transform, array geometry, spatial filters and sound files."""

from vbss.audio.bandwidth import empty_bands as empty_bands
from vbss.audio.diffuse import active_frames as active_frames
from vbss.audio.diffuse import diffuse_whitening as diffuse_whitening
from vbss.audio.files import Recording as Recording
from vbss.audio.files import read_recording as read_recording
from vbss.audio.files import resample as resample
from vbss.audio.files import write_recording as write_recording
from vbss.audio.filters import apply_masks as apply_masks
from vbss.audio.filters import multichannel_wiener as multichannel_wiener
from vbss.audio.filters import normalize_bins as normalize_bins
from vbss.audio.geometry import azimuth_grid as azimuth_grid
from vbss.audio.geometry import read_microphone_positions as read_microphone_positions
from vbss.audio.geometry import steering_vectors as steering_vectors
from vbss.audio.interaural import InterauralCues as InterauralCues
from vbss.audio.interaural import noise_power as noise_power
from vbss.audio.interaural import observed_bins as observed_bins
from vbss.audio.stft import STFT as STFT
