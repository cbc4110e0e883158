"""Generated parts of a document, between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

from pathlib import Path


def filled(document: str, name: str, text: str) -> str:
    """`document` with `text` between the markers of `name`.

    Raises ValueError unless both stand there once, in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"the document needs {begin} and, after it, {end}, once each")
    before, rest = document.split(begin)
    return f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}"


def write(path: Path, name: str, text: str) -> None:
    """`filled` on a file, replaced as a whole."""
    new = filled(path.read_text(encoding="utf-8"), name, text)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(new, encoding="utf-8")
    temporary.replace(path)
