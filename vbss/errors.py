"""The exception for input that cannot be right, and the checks that every part of the package needs."""

from collections.abc import Iterable
from math import inf
from numbers import Integral, Real
from typing import Any


class InputError(ValueError):
    """An argument or a file that cannot be processed, found before any computation starts.

    The message names the argument or the file, says what it was, and what was expected.
    """


def whole_number(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an `int`; an `InputError` unless it is a whole number (of Python or numpy) within the limits."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or int(value) < low or (high is not None and int(value) > high):
        limits = f"{low} or more" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} must be a whole number, {limits}, got {value!r}.")
    return int(value)


def positive(name: str, value: Any) -> float:
    """`value` as a `float`; an `InputError` unless it is a finite number above zero."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < inf:
        raise InputError(f"{name} must be a positive number, got {value!r}.")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """`value` as a `float`; an `InputError` unless it is a finite number, zero or more."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < inf:
        raise InputError(f"{name} must be a number, 0 or more, got {value!r}.")
    return float(value)


def whole_numbers(name: str, values: Any, low: int) -> tuple[int, ...]:
    """`values`, several or none, as a tuple of `int`; an `InputError` unless they are a sequence of `whole_number`."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a sequence of whole numbers, {low} or more, got {values!r}.")
    return tuple(whole_number(name, value, low) for value in values)


def one_of(name: str, value: Any, choices: Iterable[str]) -> str:
    """`value` itself; an `InputError` unless it is one of the choices."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
    return value
