"""The benchmark's report: a table and a picture for each condition, made from the records alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paired import mean_interval, paired_difference
from records import Records
from systems import SYSTEMS

REFERENCE = "vbss"  # what the others are compared with
WITHIN = 10.0  # degrees
_HEADER = (
    "system",
    "scenes",
    "SDR, dB",
    "median",
    "SIR, dB",
    "SI-SDR, dB",
    f"{SYSTEMS[REFERENCE].title} better by (SDR, dB)",
    "direction error, degrees",
    f"within {WITHIN:.0f}°",
    "CPU s",
    "first call",
    "wall s",
    "memory, MB",
)
_Results = Mapping[int, dict[str, Any]]  # of one system, by scene


def write_report(records: Records, conditions: list[str], folder: Path) -> str:
    """Write `report.md` and `report.png` to `folder`, and return the former's text."""
    found = {condition: _of_all_systems(records, condition) for condition in conditions}
    found = {condition: results for condition, results in found.items() if results}
    text = "\n".join(_section(condition, results) for condition, results in found.items())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text, encoding="utf-8")
    if found:
        _draw(found, folder / "report.png")
    return text


def _of_all_systems(records: Records, condition: str) -> dict[str, _Results]:
    results = {name: records.of(condition, name, system.identity()) for name, system in SYSTEMS.items()}
    return {name: of_system for name, of_system in results.items() if of_system}


def _section(condition: str, results: dict[str, _Results]) -> str:
    versions = {
        package: version for name in results for package, version in SYSTEMS[name].identity()["versions"].items()
    }
    ranked = sorted(results, key=lambda name: -np.mean([*scene_means(results[name], "sdr").values()] or [-np.inf]))
    rows = [_row(name, results) for name in ranked]
    lines = ["| " + " | ".join(cells) + " |" for cells in (_HEADER, ("---",) * len(_HEADER), *rows)]
    made_with = ", ".join(f"{package} {number}" for package, number in sorted(versions.items()))
    return "\n".join([f"### {condition}", "", *lines, "", f"Made with {made_with}.", ""])


def scene_means(results: _Results, measure: str) -> dict[int, float]:
    """The mean over the sources for every scene on which a system has the measure."""
    return {scene: float(np.mean(record[measure])) for scene, record in results.items() if measure in record}


def _row(name: str, results: dict[str, _Results]) -> tuple[str, ...]:
    of_system = results[name]
    failures = sum(record["failed"] for record in of_system.values())
    title = SYSTEMS[name].title + (f" (failed on {failures})" if failures else "")
    sdr, sir, si_sdr = (scene_means(of_system, measure) for measure in ("sdr", "sir", "si_sdr"))
    errors = [error for record in of_system.values() for error in record.get("direction_errors", ())]
    median = {key: np.median([record[key] for record in of_system.values()]) for key in ("cpu_seconds", "wall_seconds")}
    first = max(record["first_cpu_seconds"] for record in of_system.values())  # the others may find it compiled
    return (
        title,
        str(len(of_system)),
        f"{np.mean([*sdr.values()]):.2f} ± {np.std([*sdr.values()], ddof=1):.2f}" if len(sdr) > 1 else "",
        f"{np.median([*sdr.values()]):.2f}" if sdr else "",
        f"{np.mean([*sir.values()]):.2f}" if sir else "",
        f"{np.mean([*si_sdr.values()]):.2f}" if si_sdr else "",
        _difference(name, sdr, scene_means(results.get(REFERENCE, {}), "sdr")),
        f"{np.mean(errors):.1f}" if errors else "",
        f"{100 * np.mean(np.array(errors) <= WITHIN):.0f} %" if errors else "",
        f"{median['cpu_seconds']:.2f}",
        f"{first:.2f}" if SYSTEMS[name].compiles else "",
        f"{median['wall_seconds']:.2f}",
        f"{max(record['memory'] for record in of_system.values()) / 1e6:.0f}",
    )


def _difference(name: str, sdr: dict[int, float], reference: dict[int, float]) -> str:
    if name == REFERENCE or not sdr.keys() & reference.keys():
        return ""
    difference = paired_difference(reference, sdr)
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def _draw(found: dict[str, dict[str, _Results]], file: Path) -> None:
    """Mean SDR with its confidence interval against median CPU seconds, one panel for each condition."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(found) + 3, 5.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for panel, (condition, results) in zip(panels, found.items(), strict=True):
        separated = {name: of_system for name, of_system in results.items() if scene_means(of_system, "sdr")}
        for name, of_system in separated.items():
            if not SYSTEMS[name].knows_truth:
                _draw_system(panel, name, of_system)
        _draw_oracles(panel, {name: r for name, r in separated.items() if SYSTEMS[name].knows_truth})
        panel.set(xscale="log", xlabel="CPU seconds for a scene", title=condition)
    panels[0].set_ylabel("SDR, dB")
    handles = {
        title: handle for panel in panels for handle, title in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    figure.savefig(file, dpi=120)


def _draw_system(panel, name: str, of_system: _Results) -> None:
    place = list(SYSTEMS).index(name)  # the same colour and marker in every panel
    interval = mean_interval(scene_means(of_system, "sdr"))
    panel.errorbar(
        float(np.median([record["cpu_seconds"] for record in of_system.values()])),
        interval.mean,
        yerr=[[interval.mean - interval.low], [interval.high - interval.mean]],
        fmt="osD^v<>PX*hp"[place % 12],
        color=f"C{place % 10}",
        capsize=3,
        label=SYSTEMS[name].title,
    )


def _draw_oracles(panel, oracles: dict[str, _Results]) -> None:
    """A line for each; their names take turns along it, as the lines may be close."""
    means = {name: float(np.mean([*scene_means(of_system, "sdr").values()])) for name, of_system in oracles.items()}
    for turn, (name, mean) in enumerate(sorted(means.items(), key=lambda item: item[1])):
        panel.axhline(mean, color="0.7", linewidth=1, linestyle="--", zorder=0)
        place, side = ((0.02, "left"), (0.98, "right"))[turn % 2]
        panel.text(
            place, mean, SYSTEMS[name].title, transform=panel.get_yaxis_transform(), fontsize=7, ha=side, va="bottom"
        )
