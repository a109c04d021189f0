"""How a binaural recording is analysed: the choices that localisation and separation share."""

from dataclasses import dataclass

from vbss.binaural.vessl import BEST, PAPER, REVERBERANT, VESSLSettings
from vbss.errors import InputError, not_negative, one_of, positive, whole_number
from vbss.pipeline import Masking, Output, SumModel
from vbss.settings import SUM_MODELS

CALIBRATED_MODELS, UNCALIBRATED_MODELS = (
    (*(f"{cue_model}+{name}" for name in SUM_MODELS), cue_model) for cue_model in ("vessl", "messl")
)
BINAURAL_MODELS = CALIBRATED_MODELS + UNCALIBRATED_MODELS
PRESETS = {"best": BEST, "paper": PAPER}


@dataclass(frozen=True)
class BinauralSettings:
    """How a binaural recording is analysed.

    Attributes:
        model: "vessl" (positions and masks, of a calibrated head) or "messl" (masks and delays, of any), and "+nmf" or
            "+fastmnmf" for a model in which sources add up (`vbss.SumModel`), started from the masks; without it,
            sounds are the masked mixture. None is "vessl+nmf" with a calibration and "messl+nmf" without.
        vessl: "best", "paper", or a `VESSLSettings`.
        reverberant: whether the recording is of a room: only bins whose energy rises count then, as they hold direct
            sound rather than echoes, and "best" has no class of outliers (VESSL).
        margin: dB above the noise that bins must be at both ears to count (VESSL).
        share: of all bins, so many of the loudest may count (VESSL).
        has_garbage: whether there is a class of bins of no source, and the prior that levels are those of a human-sized
            head (MESSL-G).
        pseudo_count: of the prior that keeps MESSL's variances from vanishing; its authors have next to none (1e-3),
            but 1 was better on development scenes, by 2 dB without reverberation.
        max_steps: iterations of MESSL.
        num_components: spectra of each source in the sum model.
        max_sum_steps: iterations of the sum model at most.
        seed: of all that is random.

    Raises:
        InputError: for a name that is not known or a number out of its range.
    """

    model: str | None = None
    vessl: str | VESSLSettings = "best"
    reverberant: bool = False
    margin: float = 10.0
    share: float = 0.3
    has_garbage: bool = True
    pseudo_count: float = 1.0
    max_steps: int = 16
    num_components: int = 24
    max_sum_steps: int = 100
    seed: int = 0

    def __post_init__(self):
        if self.model is not None:
            one_of("model", self.model, BINAURAL_MODELS)
        if not isinstance(self.vessl, VESSLSettings):
            one_of("vessl", self.vessl, PRESETS)
        for name in ("share", "pseudo_count"):
            positive(name, getattr(self, name))
        if self.share > 1:
            raise InputError(f"share must be at most 1, got {self.share!r}.")
        not_negative("margin", self.margin)
        for name, low in (("max_steps", 1), ("num_components", 1), ("max_sum_steps", 1), ("seed", 0)):
            whole_number(name, getattr(self, name), low, 2**32 - 1 if name == "seed" else None)

    @property
    def preset(self) -> VESSLSettings:
        """The settings of VESSL themselves."""
        if isinstance(self.vessl, VESSLSettings):
            return self.vessl
        return REVERBERANT if self.reverberant and self.vessl == "best" else PRESETS[self.vessl]

    def resolved(self, is_calibrated: bool) -> str:
        """The model's name.

        Raises:
            InputError: if the model needs a calibration that is not there.
        """
        if self.model is None:
            return (CALIBRATED_MODELS if is_calibrated else UNCALIBRATED_MODELS)[0]
        if self.model in CALIBRATED_MODELS and not is_calibrated:
            raise InputError(f"calibration must be given for the model {self.model!r}; vbss.calibrate makes one.")
        return self.model

    def output(self, model: str) -> Output:
        """What makes sounds of the masks."""
        _, plus, sum_model = model.partition("+")
        if not plus:
            return Masking()
        return SumModel(self.num_components, self.max_sum_steps, model=SUM_MODELS[sum_model])
