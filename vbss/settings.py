"""How a recording is analysed: the choices that `vbss.separate` and `vbss.localize` share."""

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import jax

from vbss.audio import STFT
from vbss.errors import InputError, one_of, whole_number
from vbss.inference import EM
from vbss.models import CACGMM, LDACGMM, FastMNMF, LocalGaussianNMF
from vbss.pipeline import Pipeline, SumModel, Wiener

SUM_MODELS = {"nmf": LocalGaussianNMF, "fastmnmf": FastMNMF}  # after a mixture model and "+"
ARRAY_MODELS, BLIND_MODELS = (
    (mixture_model, *(f"{mixture_model}+{name}" for name in SUM_MODELS)) for mixture_model in ("cgmm", "cacgmm")
)
MODELS = ARRAY_MODELS + BLIND_MODELS
AUTO = "auto"  # in place of the number of sources: they are counted
ALGORITHMS = {"em": EM(), "em-derived": EM(updates="derived")}
PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class Settings:
    """How a recording is analysed.

    Attributes:
        model: "cgmm+nmf" (`vbss.models.LDACGMM`, from whose masks `vbss.models.LocalGaussianNMF` starts), "cgmm" (masks
            and one multichannel Wiener filter), "cgmm+fastmnmf" (`vbss.models.FastMNMF` as the sum model: in half its
            time, a little better without noise, worse with it), or a `vbss.Pipeline`, which brings its own settings of
            the sum model. "cacgmm+nmf" and the like begin with `vbss.models.CACGMM`, which knows nothing of the array.
            None is the first of them, or, where the positions of the microphones are not known, "cacgmm+nmf".
        algorithm: "em", "em-derived" (the same updates, derived from the program instead of by hand), or an `EM`.
        precision: "float32" or "float64", of all that is computed; sounds come back in the recording's own.
        max_steps: iterations of the mixture model at most.
        num_components: spectra of each source in the sum model.
        max_sum_steps: iterations of the sum model at most.
        window: length of the analysis window, seconds.
        hop: from one window to the next, seconds.
        num_directions: candidate azimuths, evenly on the circle.
        loading: white noise that the models add to each whitened bin or source, relative to its power. Ten times less
            changes little; without any, bins of nearly rank one count without limit and lead directions astray.
        seed: of a random start: that of the sum model's spectra.

    Raises:
        InputError: for a name that is not known or a number out of its range.
    """

    model: str | Pipeline | None = None
    algorithm: str | EM = "em"
    precision: str = "float32"
    max_steps: int = 30
    num_components: int = 16
    max_sum_steps: int = 60
    window: float = 0.128
    hop: float = 0.032
    num_directions: int = 72
    loading: float = 1e-4
    seed: int = 0

    def __post_init__(self):
        if self.model is not None and not isinstance(self.model, Pipeline):
            one_of("model", self.model, MODELS)
        if not isinstance(self.algorithm, EM):
            one_of("algorithm", self.algorithm, ALGORITHMS)
        one_of("precision", self.precision, PRECISIONS)
        for name, low, high in (
            ("max_steps", 1, None),
            ("num_components", 1, None),
            ("max_sum_steps", 1, None),
            ("num_directions", 1, 1440),
            ("seed", 0, 2**32 - 1),
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), low, high))
        for name in ("window", "hop", "loading"):
            value = getattr(self, name)
            if not isinstance(value, Real) or math.isnan(value):
                raise InputError(f"{name} must be a number, got {value!r}.")
            object.__setattr__(self, name, float(value))
        if not (math.isfinite(self.loading) and self.loading >= 0):
            raise InputError(f"loading must be a number, 0 or more, got {self.loading!r}.")
        if self.loading == 0 and (self.model is None or self.sum_model is not None):
            raise InputError("loading must be positive: without it, the density of overlapping sources has no bound.")

    @property
    def pipeline(self) -> Pipeline:
        """The model itself."""
        if isinstance(self.model, Pipeline):
            return self.model
        mixture_model = CACGMM if self.model in BLIND_MODELS else LDACGMM
        if self.model is not None and self.sum_model is None:
            return Pipeline(mixture_model, Wiener())
        output = SumModel(
            self.num_components,
            self.max_sum_steps,
            model=self.sum_model or LocalGaussianNMF,
            loading=self.loading,
            algorithm=self.inference,
        )
        return Pipeline(mixture_model, output)

    @property
    def sum_model(self) -> type[LocalGaussianNMF] | None:
        """The one that the model's name ends with, if it does."""
        return SUM_MODELS.get(self.model.partition("+")[2]) if isinstance(self.model, str) else None

    def of_array(self, positions_are_known: bool) -> "Settings":
        """These settings with a model that an array bears; an `InputError` where the one that was chosen needs more."""
        if self.model is None:
            return replace(self, model="cgmm+nmf" if positions_are_known else "cacgmm+nmf")
        if not positions_are_known and not self.pipeline.is_blind:
            name = repr(self.model) if isinstance(self.model, str) else "this pipeline"
            raise InputError(f"microphone_positions must be given for {name}; 'cacgmm+nmf' and the like do without.")
        return self

    def check_num_sources(self, num_sources: Any) -> int | str:
        """A number of sources that can be, or `AUTO`; an `InputError` otherwise."""
        if isinstance(num_sources, str):
            one_of("num_sources", num_sources, (AUTO,))
            if self.pipeline.is_blind:
                raise InputError(
                    "num_sources must be a number where the microphones' places are not known or not used."
                )
            return num_sources
        return whole_number("num_sources", num_sources, 1, self.num_directions)

    def stft(self, sample_rate: int, num_samples: int) -> STFT:
        """The transform of a recording; an `InputError` if that is shorter than a window."""
        if self.window * sample_rate >= num_samples + 0.5:  # before a window of that length is made
            raise InputError(
                f"recording has {num_samples} samples ({num_samples / sample_rate:.3g} s); at "
                f"least one window ({self.window} s) is needed."
            )
        return STFT.init(sample_rate, self.window, self.hop)

    @property
    def inference(self) -> EM:
        """The algorithm itself."""
        return self.algorithm if isinstance(self.algorithm, EM) else ALGORITHMS[self.algorithm]

    def in_precision(self):
        """A context in which JAX computes in this precision."""
        return jax.enable_x64(self.precision == "float64")
