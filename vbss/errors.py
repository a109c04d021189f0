"""The exception for input that cannot be right."""


class InputError(ValueError):
    """An argument or a file that cannot be processed, found before any computation starts.

    The message names the argument or the file, says what it was, and what was expected.
    """
