import os

import pytest

from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder, resumable_output_folder


def test_the_folder_appears_when_the_block_ends(tmp_path):
    out = tmp_path / "a" / "b"
    with new_output_folder(out) as folder:
        (folder / "report.json").write_text("{}")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["report.json"]
    assert list(out.parent.iterdir()) == [out]


def test_it_has_the_permissions_of_a_new_folder(tmp_path):
    (tmp_path / "plain").mkdir()
    with new_output_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_empty_folder_and_an_earlier_result_are_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for text in ("first", "second"):
        with new_output_folder(out) as folder:
            (folder / "report.json").write_text(text)
        assert (out / "report.json").read_text() == text
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with new_output_folder(tmp_path / "link") as folder:
        (folder / "report.json").write_text("{}")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "report.json").exists()


@pytest.mark.parametrize("names", [["thesis.tex"], ["report.json", "thesis.tex"], ["source_1.wav"]])
def test_a_folder_with_anything_else_is_refused_and_kept(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(InputError, match=names[-1]):
        check_output_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("make", ["mkdir", "symlink"])
def test_folders_and_links_are_no_earlier_result(tmp_path, make):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("{}")
    if make == "mkdir":
        (out / "source_1.wav").mkdir()
    else:
        (tmp_path / "precious.wav").write_text("")
        (out / "source_1.wav").symlink_to(tmp_path / "precious.wav")
    with pytest.raises(InputError, match="holds 'source_1.wav'"):
        check_output_folder(out)


def test_inputs_inside_the_folder_are_refused(tmp_path, monkeypatch):
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "mix.wav").write_text("")
    (tmp_path / "link").symlink_to("out")
    monkeypatch.chdir(tmp_path / "out")
    for file in ("deep/mix.wav", tmp_path / "link" / "deep" / "mix.wav"):
        with pytest.raises(InputError, match="MIX .*mix.wav' lies inside the output folder"):
            check_output_folder(tmp_path / "out", MIX=file)
    check_output_folder(tmp_path / "result", MIX="deep/mix.wav")


def test_files_that_came_meanwhile_are_kept(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="thesis.tex"), new_output_folder(out) as folder:
        (folder / "report.json").write_text("{}")
        out.mkdir()
        (out / "thesis.tex").write_text("precious")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_a_failed_exchange_brings_the_earlier_result_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with new_output_folder(out) as folder:
        (folder / "report.json").write_text("first")
    rename = type(out).rename

    def refuse(path, target):
        if path.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(type(out), "rename", refuse)
    with pytest.raises(KeyboardInterrupt), new_output_folder(out) as folder:
        (folder / "report.json").write_text("second")
    assert (out / "report.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [out]


def test_impossible_folders_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_output_folder(tmp_path / "file")
    with pytest.raises(InputError, match="not a folder you may write to"):
        check_output_folder(tmp_path / "file" / "out")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind an administrator
    with pytest.raises(InputError, match="not a folder you may write to"):
        check_output_folder(tmp_path / "out")
    with pytest.raises(InputError, match="mounted"):
        check_output_folder(tmp_path.__class__("/"))


def test_a_resumable_folder_stays_until_it_is_whole(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), resumable_output_folder(out) as folder:
        (folder / "source_1.wav").write_text("half")
        raise RuntimeError
    assert not out.exists()
    with resumable_output_folder(out) as again:
        assert again == folder and (again / "source_1.wav").read_text() == "half"
        (again / "report.json").write_text("{}")
        assert not out.exists()
    assert {path.name for path in out.iterdir()} == {"source_1.wav", "report.json"}
    assert list(tmp_path.iterdir()) == [out]
    with resumable_output_folder(out) as anew:
        assert list(anew.iterdir()) == []
        (anew / "report.json").write_text("new")
    assert [path.name for path in out.iterdir()] == ["report.json"]


def test_a_resumable_folder_is_written_by_one_process_at_a_time(tmp_path):
    with resumable_output_folder(tmp_path / "out"):
        with pytest.raises(InputError, match="another process"), resumable_output_folder(tmp_path / "out"):
            pass
