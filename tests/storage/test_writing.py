"""What cannot be written is refused by name, and a file appears whole or not at all."""

import os
from collections.abc import Callable
from enum import Flag

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import vbss
from vbss.errors import InputError
from vbss.models import GaussianMixture


class Bits(Flag):
    one = 1
    two = 2


class Cyclic(list):
    pass


def _cycle():
    items = []
    items.append(items)
    return items


class Unset(eqx.Module):
    value: jax.Array

    def __init__(self):
        self.value = jnp.ones(())


def _uninitialised():
    return object.__new__(Unset)


UNSAVABLE: dict[str, tuple[Callable, str]] = {
    "function": (lambda: {"model": [jnp.tanh]}, r"tree\['model'\]\[0\] cannot be saved, it is"),
    "distribution": (lambda: numpyro.distributions.Normal(), "Normal"),
    "object array": (lambda: np.array([None]), "array of object"),
    "masked array": (lambda: np.ma.ones(2), "MaskedArray"),
    "subclass": (lambda: Cyclic(), "Cyclic"),
    "set": (lambda: {1}, "builtins:set"),
    "bytes": (lambda: b"", "builtins:bytes"),
    "class": (lambda: GaussianMixture, "cannot be saved"),
    "combined flags": (lambda: Bits.one | Bits.two, "Bits"),
    "shape": (lambda: jax.ShapeDtypeStruct((), float), "ShapeDtypeStruct"),
    "cycle": (_cycle, "holds itself"),
    "field": (_uninitialised, r"tree\.value has no value"),
}


@pytest.mark.parametrize("name", UNSAVABLE)
def test_what_cannot_be_saved_is_named_and_the_earlier_file_kept(name, path):
    make, message = UNSAVABLE[name]
    vbss.save(path, 1)
    with pytest.raises(InputError, match=message):
        vbss.save(path, make())
    assert vbss.load(path) == 1
    assert os.listdir(path.parent) == [path.name]


def test_traced_arrays_are_refused(path):
    with pytest.raises(InputError, match=r"tree\[0\] is traced"):
        jax.jit(lambda x: vbss.save(path, [x]))(1.0)


def test_the_file_appears_whole_or_not_at_all(path, monkeypatch):
    vbss.save(path, 1)
    written = []

    def refuse(file, array, **options):
        written.extend(os.listdir(path.parent))
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", refuse)
    with pytest.raises(OSError, match="no space"):
        vbss.save(path, jnp.ones(2))
    assert len(written) == 2 and os.listdir(path.parent) == [path.name]
    assert vbss.load(path) == 1


def test_links_stay_and_permissions_are_those_of_new_files(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "link").symlink_to("real")
    vbss.save(str(tmp_path / "link"), 1)
    assert (tmp_path / "link").is_symlink() and vbss.load(tmp_path / "real") == 1
    assert (tmp_path / "real").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_impossible_paths_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "file"):
        with pytest.raises(InputError, match="must name a file in an existing folder"):
            vbss.save(path, 1)
        with pytest.raises(InputError, match="there is no file"):
            vbss.load(path)
