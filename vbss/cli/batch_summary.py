"""What `vbss batch` says of all recordings together: one table, a line for each."""

import csv
import os
import re
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex
from typing import Any

_COLUMNS = ["name", "status", "seconds", "num_sources", "directions_degrees", "expected_sdr_db", "warnings", "error"]
_NAMES = re.compile(r"summary(\.[0-9]+)?\.csv")


def is_summary(name: str) -> bool:
    """Whether that is the name of a summary, or of one process's part of it."""
    return _NAMES.fullmatch(name) is not None


def successful(name: str, status: str, report: dict[str, Any]) -> dict[str, Any]:
    """The line of a recording that has a result, by its report; seconds are those of the sound."""
    sources = report["sources"]
    return dict.fromkeys(_COLUMNS, "") | {
        "name": name,
        "status": status,
        "seconds": round(report["input"]["seconds"], 3),
        "num_sources": len(sources),
        "directions_degrees": _numbers(source.get("direction_degrees") for source in sources),
        "expected_sdr_db": _numbers(source.get("expected_sdr_db") for source in sources),
        "warnings": " ".join(report["warnings"]),
    }


def failed(name: str, error: Exception) -> dict[str, Any]:
    """The line of a recording that has none."""
    message = " ".join((str(error) or type(error).__name__).split())
    return dict.fromkeys(_COLUMNS, "") | {"name": name, "status": "failed", "error": message}


def clear_summaries(out: Path) -> None:
    """Remove those of earlier runs; every process does so before it meets the others."""
    for path in out.iterdir():
        if is_summary(path.name):
            path.unlink(missing_ok=True)


def write_summary(out: Path, rows: list[dict[str, Any]], process: int, num_processes: int) -> None:
    """Write `summary.csv`; of several processes, this one's `summary.PROCESS.csv`, and all once those of all are there.

    Parts stay where they are, so that of two processes that end together both may read them, and write the same.
    """
    if num_processes > 1:
        _write_table(out / f"summary.{process}.csv", rows)
        parts = [out / f"summary.{number}.csv" for number in range(num_processes)]
        if not all(part.is_file() for part in parts):
            return
        rows = [row for part in parts for row in _read_table(part)]
    _write_table(out / "summary.csv", rows)


def _numbers(values: Iterable[float | None]) -> str:
    return " ".join(f"{value:.1f}" for value in values if value is not None)


def _read_table(path: Path) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Complete or not at all, in the order of the names."""
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.new")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as lines:
            table = csv.DictWriter(lines, _COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(sorted(rows, key=lambda row: row["name"]))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
