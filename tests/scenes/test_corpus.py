import os

import pytest

from vbss.errors import InputError
from vbss.scenes import SpeechCorpus


def make(folder, files, **tables):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"sound")
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_speakers_are_the_first_folders(tmp_path):
    files = ["b/2/y.flac", "b/1/x.WAV", "a/z.ogg", "a/notes.txt", "a/._z.ogg", ".trash/c/x.wav"]
    corpus = SpeechCorpus.read(str(make(tmp_path, files)))
    assert corpus.files == {"a": ("a/z.ogg",), "b": ("b/1/x.WAV", "b/2/y.flac")}
    assert list(corpus.files) == ["a", "b"]
    assert corpus.folder == tmp_path


def test_files_that_lie_flat_are_of_one_speaker_each(tmp_path):
    assert SpeechCorpus.read(make(tmp_path, ["x.wav", "y.wav"])).files == {"x.wav": ("x.wav",), "y.wav": ("y.wav",)}


def test_a_manifest_decides(tmp_path):
    manifest = (
        "speaker,file,kind\nlow,set/x.wav,speech\nhigh,set/y.wav,speech read\nlow,set/a.wav,speech\n,n.wav,noise\n"
    )
    corpus = SpeechCorpus.read(make(tmp_path, ["set/x.wav", "set/y.wav", "set/a.wav", "set/z.wav"], manifest=manifest))
    assert corpus.files == {"high": ("set/y.wav",), "low": ("set/a.wav", "set/x.wav")}


def test_a_manifest_needs_no_kinds(tmp_path):
    manifest = "file,speaker\nx.wav,low\ny.wav,high\n"
    assert set(SpeechCorpus.read(make(tmp_path, ["x.wav", "y.wav"], manifest=manifest)).files) == {"low", "high"}


def test_a_split_leaves_its_speakers(tmp_path):
    splits = "speaker,split\na,test\nb,train\nc,test\nelsewhere,test\n"
    folder = make(tmp_path, ["a/1.wav", "b/1.wav", "c/1.wav"], splits=splits)
    assert set(SpeechCorpus.read(folder, "test").files) == {"a", "c"}
    assert set(SpeechCorpus.read(folder).files) == {"a", "b", "c"}
    with pytest.raises(InputError, match="split must be one of test, train, got 'tset'"):
        SpeechCorpus.read(folder, "tset")
    with pytest.raises(InputError, match="1 sound files of the split 'train', of 1 speakers"):
        SpeechCorpus.read(folder, "train")


@pytest.mark.parametrize(
    ("files", "tables", "message"),
    [
        ([], {}, "0 sound files"),
        (["all/1.wav", "all/2.wav"], {}, "2 sound files, of 1 speakers.* a folder of his own"),
        (["x.wav"], {"manifest": "file,who\nx.wav,a\n"}, "no column 'speaker'"),
        (["x.wav"], {"manifest": "file,speaker\nx.wav,a\ny.wav,b\n"}, "'y.wav', which is not there"),
    ],
)
def test_folders_without_enough_speech_are_refused(tmp_path, files, tables, message):
    with pytest.raises(InputError, match=message):
        SpeechCorpus.read(make(tmp_path, files, **tables))


def test_missing_folders_and_splits_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder of speech"):
        SpeechCorpus.read(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no table .*splits.csv"):
        SpeechCorpus.read(make(tmp_path, ["a/1.wav", "b/1.wav"]), "test")


def test_the_fingerprint_knows_a_changed_file(tmp_path):
    folder = make(tmp_path, ["a/1.wav", "b/1.wav"])
    before = SpeechCorpus.read(folder).fingerprint
    os.utime(folder / "a/1.wav", (0, 0))
    assert SpeechCorpus.read(folder).fingerprint == before
    (folder / "a/1.wav").write_bytes(b"longer sound")
    assert SpeechCorpus.read(folder).fingerprint != before
