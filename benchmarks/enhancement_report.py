"""Tables of the benchmark of speech enhancement, from its entries: one for each mixture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from noisy_speech import KINDS, SNRS
from paired import mean_interval, paired_difference


def corpus_report(entries: list[dict[str, Any]], names: list[str]) -> str:
    """The gain in SI-SDR with its interval over utterances, by noise and ratio, and all other measures at 0 dB."""
    lines = []
    for kind in KINDS:
        lines += [f"SI-SDR gain, dB, {kind}", "", "| system | " + " | ".join(f"{snr} dB" for snr in SNRS) + " |"]
        lines.append("|---|" + "---|" * len(SNRS))
        for name in names:
            cells = []
            for snr in SNRS:
                gains = {
                    e["utterance"]: e[name]["si_sdr"] - e["noisy"]["si_sdr"]
                    for e in entries
                    if e["kind"] == kind and e["snr"] == snr
                }
                cells.append("{:.1f} [{:.1f}, {:.1f}]".format(*mean_interval(gains)[:3]))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["SI-SDR gain, dB, steady noise (white and pink) at 0 dB, mean over both", ""]
    steady = [e for e in entries if e["kind"] in ("white", "pink") and e["snr"] == 0]
    for name in names:
        lines.append("- {}: {:.1f} [{:.1f}, {:.1f}]".format(name, *mean_interval(_by_utterance(steady, name))[:3]))
    lines.append("")
    still = [e for e in entries if e["kind"] != "babble" and e["snr"] == 0]
    columns = _columns(entries, names[0])
    lines += ["At 0 dB, all noises but babble", "", "| system | " + " | ".join(columns) + " | CPU s per s of sound |"]
    lines.append("|---|" + "---|" * (len(columns) + 1))
    for name in ("noisy", *names):
        cells = [f"{np.mean([e[name].get(key, np.nan) for e in still]):.2f}" for key in columns]
        seconds = "" if name == "noisy" else _cpu(entries, name)
        lines.append(f"| {name} | " + " | ".join([*cells, seconds]) + " |")
    lines.append("")
    for ours, theirs in (("langevin", "mcem"), ("langevin", "vem"), ("mcem", "point"), ("frozen", "encoder")):
        if ours in names and theirs in names:
            mean, low, high, count = paired_difference(_by_utterance(still, ours), _by_utterance(still, theirs))
            lines.append(
                f"{ours} - {theirs}, 0 dB, no babble: {mean:+.2f} [{low:.2f}, {high:.2f}] dB, {count} utterances"
            )
    return "\n".join(lines) + "\n"


def _by_utterance(entries: list[dict[str, Any]], name: str) -> dict[int, float]:
    """The mean gain in SI-SDR of a system over the noises of each utterance, which are not drawn apart."""
    gains: dict[int, list[float]] = {}
    for e in entries:
        gains.setdefault(e["utterance"], []).append(e[name]["si_sdr"] - e["noisy"]["si_sdr"])
    return {utterance: float(np.mean(values)) for utterance, values in gains.items()}


def pairs_report(entries: list[dict[str, Any]], names: list[str]) -> str:
    """The mean of every measure with its interval over files, of all files and of each kind, if there are kinds."""
    groups = {"all files": entries}
    for kind in sorted({e["kind"] for e in entries if "kind" in e}):
        groups[kind] = [e for e in entries if e.get("kind") == kind]
    columns = _columns(entries, names[0])
    lines = ["Means over files, 95 % intervals, and the number of files where not all have the measure", ""]
    for group, members in groups.items():
        lines += [f"{group}: {len(members)}", ""]
        lines.append("| system | si_sdr gain | " + " | ".join(columns) + " | CPU s per s of sound |")
        lines.append("|---|" + "---|" * (len(columns) + 2))
        for name in ("noisy", *names):
            gains = {i: e[name]["si_sdr"] - e["noisy"]["si_sdr"] for i, e in enumerate(members)}
            cells = ["" if name == "noisy" else _cell(gains, len(members))]
            for column in columns:
                values = {i: e[name][column] for i, e in enumerate(members) if column in e[name]}
                cells.append(_cell(values, len(members)))
            cells.append("" if name == "noisy" else _cpu(members, name))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _columns(entries: list[dict[str, Any]], name: str) -> list[str]:
    """The measures of a system, in order."""
    return list(dict.fromkeys(key for e in entries for key in e[name] if key != "cpu_seconds"))


def _cpu(entries: list[dict[str, Any]], name: str) -> str:
    return f"{np.median([e[name]['cpu_seconds'] / e['seconds'] for e in entries]):.2f}"


def _cell(values: Mapping[int, float], count: int) -> str:
    if not values:
        return ""
    interval = mean_interval(values)
    number = "" if interval.count == count else f" ({interval.count})"
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]{number}"
