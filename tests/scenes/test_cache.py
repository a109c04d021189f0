import numpy as np
import pytest

from vbss.errors import InputError
from vbss.scenes.cache import cache_file, read_arrays, write_arrays

ARRAYS = {"a": np.arange(3, dtype=np.float32), "b": np.array("text")}


def test_what_was_written_is_read(tmp_path):
    file = cache_file(tmp_path / "deep" / "cache", {"seed": 0})
    assert read_arrays(file, ("a", "b")) is None
    write_arrays(file, ARRAYS)
    read = read_arrays(file, ("a", "b"))
    np.testing.assert_array_equal(read["a"], ARRAYS["a"])
    assert read["a"].dtype == np.float32 and str(read["b"]) == "text"
    assert list(file.parent.iterdir()) == [file]


def test_other_origins_have_other_files(tmp_path):
    first, same, other = (cache_file(tmp_path, {"seed": seed, "range": (1, 2)}) for seed in (0, 0, 1))
    assert first == same != other


def test_broken_files_are_as_good_as_none(tmp_path):
    file = cache_file(tmp_path, {})
    write_arrays(file, ARRAYS)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(ARRAYS["a"].tobytes())] ^= 1
    for broken in (b"", b"not an archive", whole[: len(whole) // 2], bytes(flipped)):
        file.write_bytes(broken)
        assert read_arrays(file, ("a", "b")) is None
    file.write_bytes(whole)
    assert read_arrays(file, ("a", "c")) is None
    assert read_arrays(file, ("a", "b")) is not None


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_arrays(cache_file(tmp_path, {}), ARRAYS)
    assert not list(tmp_path.iterdir())


def test_a_file_cannot_be_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache cannot be made"):
        cache_file(tmp_path / "file", {})
