"""The manifest of a bundle as checked JSON: signature, hash, one meaning, the schema; in this order."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pi_runtime import strict_json, trust
from pi_runtime.errors import ClueError
from pi_runtime.files import read_small

SCHEMA_VERSION = 2  # 1 where a plan has no variants to run instead
MAX_BYTES = 16 << 20
_TEXTS = ("license", "notices")  # shown, but never used as names: these may have lines


def read(root: Path, trusted: Sequence[Path] = ()) -> tuple[dict[str, Any], str]:
    """The manifest of the bundle folder and its SHA-256.

    With lists of trusted keys (`trust`), nothing is parsed before the signature was found good. Raises
    ClueError for anything that is not as export writes it.
    """
    path = root / "manifest.json"
    if path.is_symlink() or not path.is_file():
        raise ClueError(f"{root} is no bundle: it has no manifest.json")
    content = read_small(path, MAX_BYTES)
    trust.check(root, content, trusted)
    digest = hashlib.sha256(content).hexdigest()
    words = read_small(root / "manifest.sha256", 4096).split()
    if not words or words[0] != digest.encode():
        raise ClueError(f"bundle {root}: manifest.json does not match manifest.sha256; copy the bundle again")
    return parse(root, content), digest


def parse(root: Path, content: bytes) -> dict[str, Any]:
    """The JSON of a manifest that fits the schema; `root` is for the errors. Raises ClueError."""
    try:
        raw = strict_json.loads(content, MAX_BYTES)
    except (ValueError, RecursionError) as error:
        raise ClueError(
            f"bundle {root}: manifest.json is not valid JSON ({error}); export it again"
        ) from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ClueError(
            f"bundle {root} was made by a newer clue-mobile (manifest version {version}, this runtime reads "
            f"{SCHEMA_VERSION}): update the runtime"
        )
    _check_schema(root, raw)
    checked: dict[str, Any] = raw
    for name, part in checked.items():
        # Names are printed on terminals and become names of folders.
        if name not in _TEXTS and any(map(strict_json.has_control, strict_json.strings(part))):
            raise ClueError(f"bundle {root}: manifest.json, {name}: a text has control characters")
    return checked


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # JSON Schema takes 4.0 for an integer; what reads the manifest here does not.
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    text = resources.files("contract").joinpath("manifest.schema.json").read_text(encoding="utf-8")
    return extend(Draft202012Validator, type_checker=types)(json.loads(text))


def _check_schema(root: Path, raw: object) -> None:
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(raw))
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "top level"
        message = error.message if len(error.message) < 200 else error.message[:200] + "..."
        raise ClueError(f"bundle {root}: manifest.json, {where[:200]}: {message}; export it again")
