"""The table of a derivation: verdicts, names of failures, notes."""

import math

import pytest

from vbss.check import BlockCheck, Derivation, Row


@pytest.mark.parametrize(
    ("check", "passes"),
    [
        (BlockCheck("z", None, 1e-9, 0.0), True),
        (BlockCheck("z", 1e-9, 1e-9, -1e-9), True),
        (BlockCheck("z", None, None, 0.1), True),  # of a numerical update, which need not reach the optimum
        (BlockCheck("z", 1e-3, 1e-9, 0.0), False),
        (BlockCheck("z", None, 1e-3, 0.0), False),
        (BlockCheck("z", None, 1e-9, -1e-3), False),
        (BlockCheck("z", math.nan, 1e-9, 0.0), False),
        (BlockCheck("z", None, math.nan, 0.0), False),
        (BlockCheck("z", None, 1e-9, math.nan), False),
    ],
)
def test_a_block_passes_where_nothing_exceeds_the_tolerance(check, passes):
    assert check.passed(1e-8) is passes
    assert Derivation((check,), (), 1e-8).passed is passes


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("one trace", 1.0, 1.0), "ok"),
        (Row("one trace", 2.0, 1.0), "FAILED"),
        (Row("vmap = loop", math.nan, 1.0), "FAILED"),
        (Row("probes", None, 0.0, "not quadratic"), "FAILED"),
        (Row("two devices = one", None, 1.0, "one device", skipped=True), "skipped"),
    ],
)
def test_a_row_has_a_verdict(row, verdict):
    assert row.verdict == verdict
    assert Derivation((), (row,), 1e-8).passed is (verdict != "FAILED")


def test_table_names_what_failed_and_why():
    blocks = (BlockCheck("loc", None, 1.0, 0.0), BlockCheck("z", None, 0.0, 0.0))
    note = "the program is not what it should be " * 6
    rows = (
        Row("elbo", 0.25, 1e-8),
        Row("probes", None, 0.0, note),
        Row("one trace", 1.0, 1.0),
        Row("float32 = float64", None, 1e-4, "no double precision", skipped=True),
    )
    report = Derivation(blocks, rows, 1e-8)
    assert report.failures == ("loc", "elbo", "probes")
    assert report.elbo_difference == 0.25
    assert Derivation(blocks, (), 1e-8).elbo_difference is None
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(line.endswith("FAILED") for line in lines) == 3
    assert " ".join(str(report).split()).count(note.strip()) == 1
    assert any(line.startswith("float32 = float64") and line.endswith("skipped") for line in lines)
    assert lines.index("    no double precision") > 0
    assert [line.split()[0] for line in lines[:3]] == ["block", "loc", "z"]
