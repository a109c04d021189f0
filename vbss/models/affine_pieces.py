"""Pieces of a locally affine map from positions to cues, and what observed cues say of a position.

Source: A. Deleforge and R. Horaud, "2D sound-source localization on the binaural manifold" (2012), the map (PPAM);
A. Deleforge, F. Forbes and R. Horaud, "Variational EM for binaural sound-source separation and localization" (2013).
"""

from math import log, pi
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.triangular import cholesky, solve_lower, solve_upper


class AffinePieces(NamedTuple):
    """x | z = k ~ N(centers_k, precisions_k^-1), y_d | x, z = k ~ N(<maps_dk, [x - centers_k; 1]>, noise).

    About the centres everything is small, and float32 is enough. Axes stand as products of matrices want them.

    Attributes:
        log_weights: log pi, (K,).
        centers: c, (K, L).
        precisions: Gamma^-1, (K, L, L).
        maps: [A m], slopes and the cues at the centres, (D, K, L + 1).
        squares: the products of a map's entries, packed as `pairs` says, (D, K, P).
    """

    log_weights: Float[Array, " k"]
    centers: Float[Array, "k l"]
    precisions: Float[Array, "k l l"]
    maps: Float[Array, "d k i"]
    squares: Float[Array, "d k p"]

    @classmethod
    def of_maps(
        cls,
        log_weights: Float[Array, " k"],
        centers: Float[Array, "k l"],
        precisions: Float[Array, "k l l"],
        maps: Float[Array, "d k i"],
    ) -> "AffinePieces":
        """With the products that all inference needs, computed once."""
        rows, columns, _, _ = pairs(maps.shape[-1])
        return cls(log_weights, centers, precisions, maps, maps[..., rows] * maps[..., columns])


def pairs(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and multiplicity of a symmetric matrix's entries, packed, and where each stands in the packed."""
    rows, columns = np.triu_indices(size)
    place = np.zeros((size, size), int)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return rows, columns, np.where(rows == columns, 1, 2), place


class PiecewisePosterior(NamedTuple):
    """q(x_n, z_n = k) = alpha_nk N(x_n; means_nk, precisions_nk^-1): the position of each of N sources.

    Attributes:
        logits: log alpha, up to a constant for each n, (N, K).
        means: mu, (N, K, L).
        precisions: S^-1, (N, K, L, L).
    """

    logits: Float[Array, "n k"]
    means: Float[Array, "n k l"]
    precisions: Float[Array, "n k l l"]

    @property
    def mixture(self) -> dist.MixtureSameFamily:
        """The density of the positions, a mixture of Gaussians: batch (N,), event (L,)."""
        with relaxed_promotion():
            normals = dist.MultivariateNormal(self.means, precision_matrix=self.precisions)
            return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), normals)

    @property
    def peak(self) -> Float[Array, "n l"]:
        """The most probable (x, z): the mean of the piece that is densest at its mean."""
        best = (self.logits + half_log_determinant(self.precisions)).argmax(-1)
        return jnp.take_along_axis(self.means, best[:, None, None], 1)[:, 0]


def position_log_densities(pieces: AffinePieces, positions: Float[Array, "n l"]) -> Float[Array, "n k"]:
    """log pi_k + log N(x_n; c_k, Gamma_k)."""
    factor = cholesky(pieces.precisions)
    offset = positions[:, None] - pieces.centers[None]
    white = _einsum("klm,nkl->nkm", factor, offset)
    constant = pieces.log_weights + half_log_determinant(pieces.precisions) - offset.shape[-1] / 2 * log(2 * pi)
    return constant[None] - (white**2).sum(-1) / 2


def position_posterior(
    pieces: AffinePieces, counts: Float[Array, "n d"], sums: Float[Array, "n d"], precision: Float[Array, " d"]
) -> PiecewisePosterior:
    """What cues say of the position behind them, for each of N sources on its own: equations (1) and (2) of VESSL.

    Args:
        counts: N_dn, how often each cue was observed: 0 or 1 of a single observation.
        sums: F_dn, the sum of a cue's values.
        precision: 1 / sigma^2 of a single value; 0 leaves a cue out.

    The logits leave out what does not depend on k: sum_d [counts log(precision / 2 pi) - precision squares] / 2, with
    which their logsumexp is the log evidence.
    """
    counted = _einsum("nd,dkp->nkp", counts * precision[None], pieces.squares)
    summed = _einsum("nd,dki->nki", sums * precision[None], pieces.maps)
    size = pieces.centers.shape[-1]
    *_, place = pairs(size + 1)
    precisions = pieces.precisions[None] + counted[..., place[:size, :size]]
    pull = summed[..., :size] - counted[..., place[size, :size]]
    factor = cholesky(precisions)
    shift = solve_upper(factor, solve_lower(factor, pull[..., None]))[..., 0]
    misfit = counted[..., place[size, size]] - 2 * summed[..., size]
    prior = (pieces.log_weights + half_log_determinant(pieces.precisions))[None]
    logits = prior - half_log_determinant(precisions) - (misfit - (pull * shift).sum(-1)) / 2
    return PiecewisePosterior(logits, pieces.centers[None] + shift, precisions)


def expected_cues(
    pieces: AffinePieces, positions: PiecewisePosterior
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """The mean and the mean square of the cues (without noise) of positions that are known as far as that."""
    probs = jax.nn.softmax(positions.logits, -1)[..., None]
    rows, columns, multiplicity, _ = pairs(pieces.maps.shape[-1])
    offset = positions.means - pieces.centers[None]
    regressors = jnp.concatenate([offset, jnp.ones_like(offset[..., :1])], -1)
    second = regressors[..., rows] * regressors[..., columns]
    spread = jnp.pad(inverse(positions.precisions), ((0, 0), (0, 0), (0, 1), (0, 1)))[..., rows, columns]
    weights = probs * jnp.asarray(multiplicity, probs.dtype).reshape(1, 1, -1) * (second + spread)
    return _products(probs * regressors, pieces.maps), _products(weights, pieces.squares)


def _products(of_pieces: Float[Array, "n k i"], maps: Float[Array, "d k i"]) -> Float[Array, "n d"]:
    """Summed over pieces and regressors as one axis: as one product of matrices, which two axes would not be."""
    num, size = of_pieces.shape[0], maps.shape[0]
    return _einsum("ne,de->nd", of_pieces.reshape(num, -1), maps.reshape(size, -1))


def inverse(precision: Float[Array, "*b l l"]) -> Float[Array, "*b l l"]:
    """P^-1 by its Cholesky factor."""
    factor = cholesky(precision)
    identity = jnp.broadcast_to(jnp.eye(precision.shape[-1], dtype=precision.dtype), precision.shape)
    return solve_upper(factor, solve_lower(factor, identity))


def half_log_determinant(precision: Float[Array, "*b l l"]) -> Float[Array, "*b"]:
    """log|P| / 2."""
    return jnp.log(jnp.diagonal(cholesky(precision), axis1=-2, axis2=-1)).sum(-1)


def _einsum(operands: str, *arrays: Array) -> Array:
    return jnp.einsum(operands, *arrays, precision="highest")
