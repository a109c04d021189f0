"""Operations and bytes that the kernels of a separation need at least.

Operations: a product and a sum are 1 each, a division and a root as well, an exponential or a logarithm 20. Bytes: what
a kernel is given and gives back, once each.
"""

from typing import NamedTuple

FUNCTION = 20  # operations of a float32 polynomial for exp or log


class Sizes(NamedTuple):
    """F frequencies, N frames, M microphones, D directions, K sources, B components of each, W samples of a window."""

    frequencies: int
    frames: int
    microphones: int = 4
    directions: int = 72
    sources: int = 2
    components: int = 16
    window: int = 1024

    @property
    def bins(self) -> int:
        return self.frequencies * self.frames

    @property
    def packed(self) -> int:
        """Real numbers of a Hermitian matrix."""
        return self.microphones**2


def inverse_flops(m: int) -> int:
    """Of one Cholesky factor, its inverse, that times itself, and one logarithm."""
    pairs, triples = m * (m - 1) // 2, m * (m - 1) * (m - 2) // 6
    return 24 * triples + 24 * pairs + 4 * m + FUNCTION


def mixture_needs(s: Sizes) -> tuple[float, float]:
    """An iteration of the LDA-cGMM: scatters and quadratic forms, E step, products with w, and the inverses H^-1."""
    per_bin = 2 * 2 * s.packed * s.sources + (2 * FUNCTION + 10) * s.sources
    per_direction = 3 * 2 * s.packed * s.sources + inverse_flops(s.microphones) + 4 * s.packed
    arrays = s.bins * (s.packed + 2 * 2 * s.sources) + 3 * s.frequencies * s.directions * s.packed
    return s.bins * per_bin + s.frequencies * s.directions * per_direction, 4.0 * arrays


def inverse_wishart_needs(s: Sizes) -> tuple[float, float]:
    """The same with a covariance for each class: the directions meet H^-1 only in traces and in the prior."""
    per_bin = 2 * 2 * s.packed * s.sources + (2 * FUNCTION + 10) * s.sources
    per_direction = 2 * 2 * s.packed * s.sources
    flops = s.bins * per_bin + s.frequencies * s.directions * per_direction
    arrays = s.bins * (s.packed + 2 * 2 * s.sources) + s.frequencies * s.directions * s.packed
    return flops + s.frequencies * s.sources * inverse_flops(s.microphones), 4.0 * arrays


def sum_model_needs(s: Sizes) -> dict[str, tuple[float, float]]:
    """Of the sum model's updates, bound and an iteration of all four, in which spectra and bound share S^-1."""
    m, classes, components = s.microphones, s.sources + 1, s.sources * s.components + 1
    scatter = 3 * m + 8 * (m * (m - 1) // 2)
    # Level and scaling of a bin, v, S = sum v R, S^-1, y = S^-1 x.
    weighed = 6 * m + 2 * components + 2 * classes * s.packed + inverse_flops(m) + 8 * m * m
    traces = scatter + 2 * 2 * classes * s.packed  # y^H R y and tr(S^-1 R)
    flops = {
        "spectra": weighed + traces + 4 * components,
        "activations": weighed + traces + 4 * components,
        "spatial_covariance": weighed + scatter + 4 * classes * s.packed,
        "bound": weighed + 4 * m + FUNCTION,
    }
    data = 8.0 * s.bins * m
    unknowns = 4.0 * (components * (s.frequencies + s.frames) + s.frequencies * classes * s.packed)
    needs = {name: (float(s.bins * count), data + unknowns) for name, count in flops.items()}
    together = sum(flops.values()) - weighed
    return needs | {"together": (float(s.bins * together), 3 * data + 2 * unknowns)}


def fast_mnmf_needs(s: Sizes) -> tuple[float, float]:
    """Of an iteration of FastMNMF, whose four updates and bound each begin with y = Q x, d = sum v g and |y|^2 / d."""
    m, classes, components = s.microphones, s.sources + 1, s.sources * s.components + 1
    weighed = 6 * m + 2 * components + 2 * classes * m + 8 * m * m + 6 * m
    flops = {
        "spectra": weighed + 2 * m + 4 * classes * m + 4 * components,
        "activations": weighed + 2 * m + 4 * classes * m + 4 * components,
        "gains": weighed + 2 * m + 4 * classes * m,
        "demixing": weighed + 3 * m + 8 * (m * (m - 1) // 2) + 2 * m * s.packed,
        "bound": m * (2 + FUNCTION),  # shares the pass of the spectra
    }
    unknowns = components * (s.frequencies + s.frames) + s.frequencies * m * (classes + 2 * m)
    return float(s.bins * sum(flops.values())), 4 * 8.0 * s.bins * m + 2 * 4.0 * unknowns
