"""The one error that users see: a sentence that says what is wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClueError(ValueError):
    """A problem that the user can act on. Command lines print it in one line and exit with code 2."""


class MissingLibraryError(ClueError):
    """A native library that an engine needs is not there."""


def unknown(kind: str, given: str, choices: Iterable[str]) -> ClueError:
    """Build the error for a name that is none of `choices`; lists them, the closest first.

    >>> str(unknown("method", "cleu", ["clue", "ga"]))
    "unknown method 'cleu': did you mean 'clue'? Choices: clue, ga"
    """
    known = sorted(choices)
    close = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ClueError(f"unknown {kind} {given!r}: {hint}Choices: {', '.join(known) or 'none'}")


def printable(text: object) -> str:
    r"""A text for a terminal: what it would act on, and names of files that are no UTF-8, as escapes.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in str(text)
    )
