from dataclasses import replace

import numpy as np
import pytest
from records import Records, fingerprint

from vbss.scenes import Scene

IDENTITY = {"settings": {"window": 0.064, "range": (1, 2)}, "versions": {"numpy": "2.0"}, "sources": None}


@pytest.fixture
def records(tmp_path):
    records = Records(tmp_path / "records")
    records.write("clean", "system", 3, "scene", IDENTITY, {"sdr": [1.5, 2.5]})
    return records


def test_a_written_record_is_finished_and_read_back(records):
    assert records.finished("clean", "system", 3, "scene", IDENTITY)
    found = records.of("clean", "system", IDENTITY)
    assert list(found) == [3]
    assert found[3]["sdr"] == [1.5, 2.5]
    assert [path.name for path in (records.folder / "clean" / "system").iterdir()] == ["0003.json"]


def test_another_scene_system_condition_or_index_is_not_finished(records):
    assert not records.finished("clean", "system", 3, "another scene", IDENTITY)
    assert not records.finished("clean", "system", 4, "scene", IDENTITY)
    assert not records.finished("clean", "another", 3, "scene", IDENTITY)
    assert not records.finished("30dB", "system", 3, "scene", IDENTITY)


@pytest.mark.parametrize("change", [{"settings": {"window": 0.128}}, {"versions": {"numpy": "2.1"}}, {"sources": "a"}])
def test_a_record_of_older_settings_or_versions_does_not_count(records, change):
    assert not records.finished("clean", "system", 3, "scene", IDENTITY | change)
    assert records.of("clean", "system", IDENTITY | change) == {}


def test_a_broken_record_is_as_good_as_none(records):
    (records.folder / "clean" / "system" / "0003.json").write_text('{"scene": "sce')
    assert not records.finished("clean", "system", 3, "scene", IDENTITY)
    assert records.of("clean", "system", IDENTITY) == {}
    records.write("clean", "system", 3, "scene", IDENTITY, {})
    assert records.finished("clean", "system", 3, "scene", IDENTITY)


def test_fingerprint_changes_with_anything_a_result_depends_on():
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, 3, 8))
    scene = Scene(images.sum(0), images, np.zeros((3, 8)), 8000, generator.standard_normal((3, 3)), np.zeros(2))
    changes = [
        {"mixture": scene.mixture + 1e-9},
        {"images": images[::-1]},
        {"sample_rate": 16000},
        {"microphone_positions": -scene.microphone_positions},
        {"azimuths": np.ones(2)},
    ]
    assert len({fingerprint(scene), *(fingerprint(replace(scene, **change)) for change in changes)}) == 6
    assert fingerprint(replace(scene, description={"room": "told later"})) == fingerprint(scene)
