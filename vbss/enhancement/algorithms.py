"""The algorithms of enhancement by name, with the settings that serve speech spectra."""

from collections.abc import Callable

from vbss.errors import one_of
from vbss.inference import MALA, AmortisedEM, Ascent, Langevin, Metropolis, MonteCarloEM
from vbss.inference.algorithm import Algorithm
from vbss.networks.codes import CodeNetwork

_PLATE = "frames"
_ENDLESS = 0.0  # tolerance: noise of the draws hides when little changes any more


def _langevin(network: CodeNetwork, is_framewise: bool) -> Algorithm:
    return MonteCarloEM(10, kernel=Langevin(5e-3), num_kernel_steps=2, forgetting=0.0, tolerance=_ENDLESS)


def _mcem(network: CodeNetwork, is_framewise: bool) -> Algorithm:
    kernel = Metropolis(0.1, _PLATE if is_framewise else None)
    return MonteCarloEM(1, kernel=kernel, num_kernel_steps=40, num_kept=10, forgetting=0.0, tolerance=_ENDLESS)


def _mala(network: CodeNetwork, is_framewise: bool) -> Algorithm:
    kernel = MALA(5e-3, _PLATE if is_framewise else None)
    return MonteCarloEM(1, kernel=kernel, num_kernel_steps=10, num_kept=5, forgetting=0.0, tolerance=_ENDLESS)


def _point(network: CodeNetwork, is_framewise: bool) -> Algorithm:
    return MonteCarloEM(1, kernel=Ascent(1e-2), num_kernel_steps=10, forgetting=0.0, tolerance=_ENDLESS)


def _vem(network: CodeNetwork, is_framewise: bool) -> Algorithm:
    return AmortisedEM(network, learning_rate=1e-3, tolerance=_ENDLESS)


def _encoder(network: CodeNetwork, is_framewise: bool) -> Algorithm:
    return AmortisedEM(network, num_gradient_steps=0, tolerance=_ENDLESS)


ALGORITHMS: dict[str, Callable[[CodeNetwork, bool], Algorithm]] = {
    "langevin": _langevin,
    "mcem": _mcem,
    "mala": _mala,
    "vem": _vem,
    "point": _point,
    "encoder": _encoder,
}


def algorithm_of(name: str, network: CodeNetwork, is_framewise: bool) -> Algorithm:
    """The algorithm of a name.

    Args:
        network: says q of the codes.
        is_framewise: whether the decoders look at each frame by itself, so that frames may be accepted by themselves.

    Raises:
        InputError: for a name that is not known.
    """
    return ALGORITHMS[one_of("algorithm", name, ALGORITHMS)](network, is_framewise)
