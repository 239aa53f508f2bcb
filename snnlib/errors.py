"""The one error that users of the library are meant to read."""

from __future__ import annotations


class InputError(ValueError):
    """A value from outside does not fit: one line with the value, what was expected and what to do.

    Command-line entry points print it without a traceback and exit with code 2.
    """
