"""Tables of the benchmark of one-microphone separation, from its entries: one for each mixture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from paired import crossed_interval
from scipy import stats

_COMPARED = (
    ("speakers' models, point", "speakers' models, encoder"),
    ("speakers' models, langevin", "speakers' models, encoder"),
    ("speakers' models, point", "vae 513-128-64, magnitudes"),
    ("speakers' models, point", "vae 513-128-64, shares"),
    ("vae 513-256-192-128-64, shares", "vae 513-128-64, shares"),
    ("vae 513-128-64, shares", "mask of a DNN"),
)


def report_of(entries: list[dict[str, Any]], snrs: Sequence[int]) -> str:
    """SDR, SIR and SAR by gender, paired differences over pairs of speakers, and variances by ratio."""
    lines = [f"{len(entries)} mixtures of {len({(e['woman'], e['man']) for e in entries})} pairs", ""]
    lines += ["| system | SDR | women SDR / SIR / SAR | men SDR / SIR / SAR | CPU s |", "|---|---|---|---|---|"]
    for name in entries[0]["systems"]:
        cells = ["{:.2f} [{:.2f}, {:.2f}]".format(*crossed_interval(_by_pair(entries, name))[:3])]
        for place in range(2):
            ratios = [np.mean([e["systems"][name][key][place] for e in entries]) for key in ("sdr", "sir", "sar")]
            cells.append(" / ".join(f"{ratio:.2f}" for ratio in ratios))
        seconds = np.median([e["systems"][name]["cpu_seconds"] for e in entries])
        lines.append(f"| {name} | {' | '.join(cells)} | {seconds:.2f} |")
    lines.append("")
    for ours, theirs in _COMPARED:
        mean, low, high, count = crossed_interval(_by_pair(entries, ours) - _by_pair(entries, theirs))
        lines.append(f"- {ours} - {theirs}: {mean:+.2f} [{low:.2f}, {high:.2f}] dB SDR, {count} pairs")
    lines += [
        "",
        "| posterior variance, mean | " + " | ".join(f"{snr} dB" for snr in snrs) + " | rank correlation |",
    ]
    lines.append("|---|" + "---|" * (len(snrs) + 1))
    for name in entries[0]["variances"][0]:
        values = np.array([v[name] for e in entries for v in e["variances"]])
        correlations = [_rank_correlation(snrs, row) for row in values]
        cells = [f"{mean:.3f}" for mean in values.mean(0)]
        of_means = _rank_correlation(snrs, values.mean(0))
        told = f"{of_means:.2f}; of single mixtures {np.mean(correlations):.2f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines) + "\n"


def _by_pair(entries: list[dict[str, Any]], name: str) -> np.ndarray:
    """Mean SDR of both speakers, for each woman and man."""
    women, men = (sorted({entry[who] for entry in entries}) for who in ("woman", "man"))

    def mean(woman: str, man: str) -> float:
        pair = (woman, man)
        return float(np.mean([e["systems"][name]["sdr"] for e in entries if (e["woman"], e["man"]) == pair]))

    return np.array([[mean(woman, man) for man in men] for woman in women])


def _rank_correlation(first: Any, second: Any) -> float:
    """Spearman's."""
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])
