"""Bytes that a user has to install for a peer: its packages with all that they require, and own folders."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

from work import ROOT


def size(module: Any) -> int:
    """Bytes of the distributions in PACKAGES, of those that they require, and of FOLDERS of this repository.

    Compiled Python files do not count: whether they are there depends on the installer.
    """
    total = 0
    for name in closure(module.PACKAGES):
        for file in metadata.distribution(name).files or ():
            path = file.locate()
            if file.suffix != ".pyc" and path.is_file():
                total += path.stat().st_size
    for folder in getattr(module, "FOLDERS", ()):
        paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
        total += sum(path.stat().st_size for path in paths)
    return total


def closure(packages: tuple[str, ...]) -> list[str]:
    """These distributions and those that they require. ModuleNotFoundError where one is missing."""
    found: set[str] = set()
    todo = [(name, frozenset[str]()) for name in packages]
    seen = set()
    for name in packages:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise ModuleNotFoundError(f"{name} is not installed") from None
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        name, extras = item
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another system, or an option
        found.add(re.sub(r"[-_.]+", "-", name).lower())
        for line in requires:
            wanted = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
            if wanted and wanted.group(1) not in extras:
                continue
            match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", line)
            assert match is not None
            more = frozenset(part.strip() for part in (match.group(2) or "").split(",") if part.strip())
            todo.append((match.group(1), more))
    return sorted(found)
