"""Densities that are products over a plate, whose elements may be moved and accepted each by itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro.distributions import constraints

from vbss.compilation import compiled
from vbss.errors import InputError
from vbss.inference.target import Target


class Elements(eqx.Module):
    """The elements of a plate, or the whole as the only one.

    Attributes:
        target: the density.
        plate: its name; None for the whole.
        places: which element each coordinate of a position belongs to.
    """

    target: Target
    plate: str | None = eqx.field(static=True)
    places: Int[np.ndarray, " size"]

    @classmethod
    def of(cls, target: Target, plate: str | None) -> "Elements":
        """The elements of a plate.

        Raises:
            InputError: if the program has no such plate, a site stands outside of it, is discrete, or is a latent that
                is not real.
        """
        places = np.zeros(target.size, np.int32) if plate is None else _places(target, plate)
        return cls(target, plate, places)

    def log_densities(self, position: Float[Array, " size"]) -> Float[Array, " elements"]:
        """log p(y, position) of each element."""
        if self.plate is None:
            return self.target.log_density(position)[None]
        total = 0
        for site in self.target.sites(position).values():
            frame = next(frame for frame in site.frames if frame.name == self.plate)
            axis = site.log_prob.ndim + frame.dim
            total = total + site.log_prob.sum([other for other in range(site.log_prob.ndim) if other != axis])
        return jnp.asarray(total, position.dtype)


def _places(target: Target, plate: str) -> Int[np.ndarray, " size"]:
    if target.discrete:
        raise InputError(
            f"plate: discrete latent {target.discrete[0]!r} is summed out of the whole density: leave plate out"
        )
    sites = target.sites(jnp.zeros(target.size))
    places = []
    for name, site in sites.items():
        frame = next((frame for frame in site.frames if frame.name == plate), None)
        if frame is None:
            known = sorted({frame.name for other in sites.values() for frame in other.frames})
            raise InputError(f"plate: site {name!r} stands outside of plate {plate!r}; the program has {known}")
        if site.is_observed:
            continue
        if site.support not in (constraints.real, constraints.real_vector):
            raise InputError(f"plate: latent {name!r} must be real to be moved by the elements of a plate")
    for name, shape, _ in target.layout:
        site = sites[name]
        (frame,) = (frame for frame in site.frames if frame.name == plate)
        axis = site.batch_rank + frame.dim
        order = np.arange(shape[axis], dtype=np.int32).reshape(-1, *(1,) * (len(shape) - axis - 1))
        places.append(np.broadcast_to(order, shape).reshape(-1))
    return np.concatenate(places)


def check_separable(target: Target, plate: str, position: Float[Array, " size"], key: Array) -> None:
    """Raise InputError where the density of one element of a plate depends on the latents of another."""
    change, scale = _others_change(target, plate, position, key)
    if not float(change) <= float(jnp.finfo(position.dtype).eps) ** 0.75 * float(scale):
        raise InputError(
            f"plate: the density of an element of plate {plate!r} depends on the latents of others, so that they "
            "cannot be accepted each by itself: leave plate out"
        )


@compiled
def _others_change(
    target: Target, plate: str, position: Float[Array, " size"], key: Array
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How far the densities of elements that stay move when all others do, and how large densities are."""
    elements = Elements.of(target, plate)
    num_elements = int(elements.places.max()) + 1
    key_stay, key_move = jax.random.split(key)
    # Of two neighbours one moves, and so do others at random.
    stays = jax.random.bernoulli(key_stay, 0.5, (num_elements,)).at[0].set(True)
    if num_elements > 1:
        stays = stays.at[1].set(False)
    moved = position + jnp.where(stays[elements.places], 0, jax.random.normal(key_move, position.shape, position.dtype))
    before, after = elements.log_densities(position), elements.log_densities(moved)
    return jnp.where(stays, jnp.abs(after - before), 0).max(), 1 + jnp.abs(before).max()
