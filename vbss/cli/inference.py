"""Inference from the command line: with a progress bar, and errors that name the options."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from vbss.cli.arguments import OPTIONS, in_options
from vbss.errors import InputError

if TYPE_CHECKING:
    Result = TypeVar("Result", bound="_Inferred")


class _Inferred(Protocol):
    """What is known of a result: how the inference of each stage ended."""

    @property
    def solutions(self) -> Mapping[str, Any]: ...


class InferenceFailed(Exception):
    """Inference ended without a usable posterior."""


@contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int, float], None]]:
    """A bar on terminals, which begins anew whenever steps do; yields what takes a step, their number and the bound."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="step", leave=False, disable=quiet or not sys.stderr.isatty()) as bar:

        def progress(step: int, steps: int, bound: float) -> None:
            if step < bar.n:
                bar.reset(total=steps)
            bar.total = steps
            bar.set_postfix(bound=f"{bound:.6g}", refresh=False)
            bar.update(step - bar.n)

        yield progress


def infer(run: "Callable[..., Result]", what: str, quiet: bool) -> "Result":
    """What `run(progress=...)` returns, if it can be used; a progress bar says `what` is being done.

    **Raises:** `InputError` with the names that arguments have on the command line; `InferenceFailed`;
    `KeyboardInterrupt` also where inference itself was interrupted.
    """
    from tqdm import tqdm

    with tqdm(desc=what, unit="step", leave=False, disable=quiet or not sys.stderr.isatty()) as bar:

        def progress(step: int, max_steps: int, elbo: float) -> None:
            if step < bar.n:  # a second model
                bar.reset(total=max_steps)
                bar.set_description(f"{what}, second model", refresh=False)
            bar.total = max_steps
            bar.set_postfix(elbo=f"{elbo:.6g}", refresh=False)
            bar.update(step - bar.n)

        try:
            result = run(progress=progress)
        except InputError as error:
            raise in_options(error, OPTIONS) from error

    if any(solution.status.name == "interrupted" for solution in result.solutions.values()):
        raise KeyboardInterrupt
    # Where a second model fails, the first one's result is there, with a warning.
    first = next(iter(result.solutions.values()))
    if first.status.name == "nonfinite":
        raise InferenceFailed(first.status.explanation)
    return result
