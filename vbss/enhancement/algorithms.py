"""The algorithms of enhancement by name, with the settings that serve speech spectra."""

from collections.abc import Callable
from typing import Any

from vbss.errors import one_of
from vbss.inference import MALA, AmortisedEM, Ascent, Langevin, Metropolis, MonteCarloEM
from vbss.inference.algorithm import Algorithm
from vbss.models import VAENMF
from vbss.networks.codes import CodeNetwork

_PLATE = "frames"
# Noise of the draws hides when little changes any more, so inference takes all steps.
_EM: dict[str, Any] = {"forgetting": 0.0, "tolerance": 0.0}


def _langevin(network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...]) -> Algorithm:
    return MonteCarloEM(10, kernel=Langevin(5e-3), num_kernel_steps=2, frozen=frozen, **_EM)


def _mcem(network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...]) -> Algorithm:
    kernel = Metropolis(0.1, _PLATE if is_framewise else None)
    return MonteCarloEM(1, kernel=kernel, num_kernel_steps=40, num_kept=10, frozen=frozen, **_EM)


def _mala(network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...]) -> Algorithm:
    kernel = MALA(5e-3, _PLATE if is_framewise else None)
    return MonteCarloEM(1, kernel=kernel, num_kernel_steps=10, num_kept=5, frozen=frozen, **_EM)


def _point(network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...]) -> Algorithm:
    return MonteCarloEM(1, kernel=Ascent(1e-2), num_kernel_steps=10, frozen=frozen, **_EM)


def _vem(network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...]) -> Algorithm:
    return AmortisedEM(network, learning_rate=1e-3, frozen=frozen, **_EM)


def _encoder(network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...]) -> Algorithm:
    return AmortisedEM(network, num_gradient_steps=0, frozen=frozen, **_EM)


def _frozen(network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...]) -> Algorithm:
    alone = CodeNetwork(network.encoders, network.names)  # what it is shown holds no noise
    return AmortisedEM(alone, heard=VAENMF.expected_power, num_gradient_steps=0, frozen=frozen, **_EM)


ALGORITHMS: dict[str, Callable[[CodeNetwork, bool, tuple[str, ...]], Algorithm]] = {
    "langevin": _langevin,
    "mcem": _mcem,
    "mala": _mala,
    "vem": _vem,
    "point": _point,
    "encoder": _encoder,
    "frozen": _frozen,
}


def algorithm_of(name: str, network: CodeNetwork, is_framewise: bool, frozen: tuple[str, ...] = ()) -> Algorithm:
    """The algorithm of a name.

    Args:
        network: says q of the codes.
        is_framewise: whether the decoders look at each frame by itself, so that frames may be accepted by themselves.
        frozen: points of the model that stay as they are.

    Raises:
        InputError: for a name that is not known.
    """
    return ALGORITHMS[one_of("algorithm", name, ALGORITHMS)](network, is_framewise, frozen)
