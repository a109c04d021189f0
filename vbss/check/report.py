"""What `check_derivation` found, as a table."""

import textwrap
from dataclasses import dataclass

_WIDTH = 120


@dataclass(frozen=True)
class BlockCheck:
    """One block at its worst over the states tried.

    Attributes:
        block: a site, point or parameter.
        difference: of the hand-derived update from the derived one, relative; None without a hand-derived update.
        gradient: of the bound in the block's coordinates after the update, relative to 1 + |bound|; None where an
            update need not reach the optimum (`vbss.Numerical`).
        change: of the bound by the update, relative to 1 + |bound|; a correct update never lowers it.
    """

    block: str
    difference: float | None
    gradient: float | None
    change: float

    def passed(self, tolerance: float) -> bool:
        is_optimal = self.gradient is None or self.gradient <= tolerance
        is_derived = self.difference is None or self.difference <= tolerance
        return is_optimal and is_derived and self.change >= -tolerance


@dataclass(frozen=True)
class Row:
    """One clause of the contract.

    Attributes:
        name: what must hold.
        value: what was measured; None where nothing could be.
        tolerance: the largest value that passes.
        note: what went wrong, or why the row was skipped.
        skipped: whether nothing was tried.
    """

    name: str
    value: float | None
    tolerance: float
    note: str = ""
    skipped: bool = False

    @property
    def verdict(self) -> str:
        """ "ok", "FAILED" or "skipped"."""
        if self.skipped:
            return "skipped"
        return "ok" if self.value is not None and self.value <= self.tolerance else "FAILED"


@dataclass(frozen=True)
class Derivation:
    """What `check_derivation` found. Prints as a table; `passed` says whether every line holds.

    Attributes:
        blocks: one line for each block of the posterior, point or parameter.
        rows: one line for each clause of the contract.
        tolerance: of the blocks.
    """

    blocks: tuple[BlockCheck, ...]
    rows: tuple[Row, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what was skipped does not count."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the blocks and rows that fail; "elbo" is the closed-form bound."""
        blocks = tuple(check.block for check in self.blocks if not check.passed(self.tolerance))
        return blocks + tuple(row.name for row in self.rows if row.verdict == "FAILED")

    @property
    def elbo_difference(self) -> float | None:
        """Of the closed-form bound from E_q[log p - log q], relative to 1 + |bound|; None without a closed form."""
        return next((row.value for row in self.rows if row.name == "elbo"), None)

    def __str__(self) -> str:
        lines = [f"{'block':<28}{'closed - derived':>18}{'|gradient|':>14}{'bound change':>14}"]
        for check in self.blocks:
            numbers = f"{_number(check.difference):>18}{_number(check.gradient):>14}{_number(check.change):>14}"
            verdict = "ok" if check.passed(self.tolerance) else "FAILED"
            lines.append(f"{check.block:<28}{numbers}  {verdict}")
        if self.rows:
            lines += ["", f"{'contract':<46}{'value':>14}{'tolerance':>14}"]
        for row in self.rows:
            name = "elbo: closed bound = E_q[log p - log q]" if row.name == "elbo" else row.name
            lines.append(f"{name:<46}{_number(row.value):>14}{_number(row.tolerance):>14}  {row.verdict}")
            lines += textwrap.wrap(row.note, _WIDTH, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
