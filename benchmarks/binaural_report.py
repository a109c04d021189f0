"""The binaural benchmark's report: two tables for each head set and number of sources, and a picture of all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from binaural_systems import Row
from paired import mean_interval, paired_difference
from records import Records

REFERENCE = "vessl"  # what the others are compared with; of several calibrations, the first
WITHIN = 10.0  # degrees on the great circle
_HEADER = (
    "system",
    "scenes",
    "pieces / directions",
    "azimuth error, degrees",
    "elevation error, degrees",
    "lateral error, degrees",
    f"within {WITHIN:.0f}°",
    "SDR, dB",
    "SIR, dB",
    "CPU s per s",
)
_COMPARED = {
    "sdr": "SDR, dB",
    "sir": "SIR, dB",
    "great_circle_errors": "great-circle error, degrees",
    "lateral_errors": "lateral error, degrees",
}
_Results = Mapping[int, dict[str, Any]]  # of one row, by scene


def write_report(records: Records, experiments: Mapping[str, list[Row]], folder: Path) -> str:
    """Write `report.md` and `report.png` to `folder`, and return the former's text.

    Args:
        records: what was measured.
        experiments: the rows of each experiment, by its name; those without records are left out.
        folder: of the report; made if it is not there.
    """
    found: dict[str, dict[str, _Results]] = {}
    titles: dict[str, str] = {}
    versions: dict[str, str] = {}
    for experiment, rows in experiments.items():
        results = {row.name: records.of(experiment, row.name, row.identity) for row in rows}
        results = {name: of_row for name, of_row in results.items() if of_row}
        if results:
            found[experiment] = results
            titles |= {row.name: row.title for row in rows}
            versions |= {package: number for row in rows for package, number in row.identity["versions"].items()}
    made_with = ", ".join(f"{package} {number}" for package, number in sorted(versions.items()))
    sections = [_section(experiment, results, titles) for experiment, results in found.items()]
    text = "\n".join([*sections, f"Made with {made_with}.", ""]) if found else ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text, encoding="utf-8")
    if found:
        _draw(found, titles, folder / "report.png")
    return text


def _section(experiment: str, results: dict[str, _Results], titles: dict[str, str]) -> str:
    table = [_row(titles[name], of_row) for name, of_row in results.items()]
    lines = [f"### {experiment}", "", *_markdown(_HEADER, table), ""]
    lines += ["Errors: mean ± standard deviation over sources (median). SDR and SIR likewise, without the median.", ""]
    reference = next((name for name in results if name.partition("@")[0] == REFERENCE), None)
    if reference is not None and len(results) > 1:
        header = (f"{titles[reference]} minus", "scenes", *_COMPARED.values())
        others = [
            (titles[name], *_differences(results[reference], of_row))
            for name, of_row in results.items()
            if name != reference
        ]
        lines += [*_markdown(header, others), ""]
        lines += ["Paired over scenes, each the mean of its sources, with the 95 % interval.", ""]
    return "\n".join(lines)


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows)]


def _row(title: str, of_row: _Results) -> tuple[str, ...]:
    records = list(of_row.values())
    failures = sum(record["failed"] for record in records)
    great_circle = _of_sources(of_row, "great_circle_errors")
    costs = [record["cpu_seconds"] / record["audio_seconds"] for record in records]
    return (
        title + (f" (failed on {failures})" if failures else ""),
        str(len(records)),
        f"{records[0]['pieces']} / {records[0]['calibration_directions']}" if "pieces" in records[0] else "",
        *(_spread(_of_sources(of_row, f"{name}_errors"), True) for name in ("azimuth", "elevation", "lateral")),
        f"{100 * np.mean(great_circle <= WITHIN):.0f} %" if great_circle.size else "",
        *(_spread(_of_sources(of_row, name), False) for name in ("sdr", "sir")),
        f"{np.median(costs):.3f}",
    )


def _of_sources(of_row: _Results, measure: str) -> np.ndarray:
    """A measure of every source of every scene that has it."""
    return np.array([value for record in of_row.values() for value in record.get(measure, ())])


def _spread(values: np.ndarray, has_median: bool) -> str:
    if not values.size:
        return ""
    deviation = f" ± {values.std(ddof=1):.1f}" if values.size > 1 else ""
    return f"{values.mean():.1f}{deviation}" + (f" ({np.median(values):.1f})" if has_median else "")


def _scene_means(of_row: _Results, measure: str) -> dict[int, float]:
    """The mean over the sources for every scene that has the measure."""
    return {scene: float(np.mean(record[measure])) for scene, record in of_row.items() if measure in record}


def _differences(reference: _Results, of_row: _Results) -> tuple[str, ...]:
    """The number of scenes that both have, and the difference of each measure that both have."""
    cells = []
    for measure in _COMPARED:
        ours, theirs = _scene_means(reference, measure), _scene_means(of_row, measure)
        if ours.keys() & theirs.keys():
            difference = paired_difference(ours, theirs)
            cells.append(f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]")
        else:
            cells.append("")
    return str(len(reference.keys() & of_row.keys())), *cells


def _draw(found: dict[str, dict[str, _Results]], titles: dict[str, str], file: Path) -> None:
    """Means over scenes with their confidence intervals: ratios above, errors below, a column for each experiment."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for results in found.values() for name in results))
    measures = {name: label for name, label in _COMPARED.items() if name in ("lateral_errors", "sdr")}
    figure = Figure(figsize=(3.5 * len(found) + 3.5, 0.6 * len(names) + 2), layout="constrained")
    panels = figure.subplots(len(measures), len(found), sharey=True, sharex="row", squeeze=False)
    for column, (experiment, results) in zip(panels.T, found.items(), strict=True):
        for panel, (measure, label) in zip(column, measures.items(), strict=True):
            for place, name in enumerate(names):
                means = _scene_means(results.get(name, {}), measure)
                if means:
                    interval = mean_interval(means)
                    half = interval.high - interval.mean
                    error = half if np.isfinite(half) else None
                    panel.errorbar(interval.mean, place, xerr=error, fmt="o", color=f"C{place % 10}", capsize=3)
            panel.set(xlabel=label)
            panel.grid(axis="x", alpha=0.3)
        column[0].set(title=experiment)
    panels[0, 0].set_yticks(range(len(names)), [titles[name] for name in names])
    panels[0, 0].invert_yaxis()
    figure.savefig(file, dpi=120)
