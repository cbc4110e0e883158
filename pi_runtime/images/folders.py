"""The image files of a folder, by path; links that lead out of it or in circles are not followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pi_runtime.errors import ClueError
from pi_runtime.images.decode import SUFFIXES

MAX_FILES = 1_000_000


def find(folder: Path) -> list[Path]:
    """Files with the suffix of an image in the folder and its subfolders.

    Hidden files and folders (.name) are left out, and links to folders are not followed. Raises ClueError
    for a link to a file outside of the folder, a broken link, a folder that cannot be listed or has no
    images.
    """
    found: list[Path] = []
    inside = folder.resolve()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            raise ClueError(f"cannot list the folder {here}: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif path.suffix.lower() in SUFFIXES and _is_file(path, inside):
                found.append(path)
                if len(found) > MAX_FILES:
                    raise ClueError(
                        f"{folder} has more than {MAX_FILES:,} images: add its subfolders in turn"
                    )
    if not found:
        raise ClueError(f"{folder} has no images ({', '.join(SUFFIXES)})")
    return sorted(found)


def _is_file(path: Path, inside: Path) -> bool:
    if not path.is_symlink():
        return True
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise ClueError(f"{path} is a link that leads nowhere: remove it") from error
    if stat.S_ISDIR(mode):
        return False
    if not target.is_relative_to(inside):
        raise ClueError(f"{path} is a link out of the folder: name {target} itself if it is meant")
    return True
