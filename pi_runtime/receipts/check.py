"""Checks a receipt without the device: what is proven, what is only stated, what is not proven."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pi_runtime.errors import ClueError
from pi_runtime.receipts import canonical, receipt, told
from pi_runtime.receipts.signing import is_signed


@dataclass(frozen=True)
class Verdict:
    """`problem` is None for a receipt that holds; the others are sentences, empty where it does not."""

    problem: str | None
    proven: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    not_proven: tuple[str, ...] = ()


class _Wrong(Exception):  # noqa: N818  the sentence of a verdict
    """The receipt or its chain does not hold."""


def check(
    content: bytes,
    *,
    key: str | None = None,
    chain: Mapping[str, bytes] | None = None,
    weights: str | None = None,
) -> Verdict:
    """Check a receipt's bytes.

    `key`: the public key in hex that it must be signed with. `chain`: all receipts of the store by their file
    names, among them this one. `weights`: the SHA-256 of a weights file that should be the one it ends with.
    """
    try:
        found = _read(content)
        if key is not None and key != found["key"]:
            raise _Wrong(f"it is signed by the key {found['key']}, not by {key}")
        if chain is not None:
            _check_chain(found, content, chain)
        if weights is not None and weights != found["weights"]["after"]:
            raise _Wrong(
                f"the weights file is not the receipt's: its SHA-256 is {weights}, the receipt has "
                f"{found['weights']['after']}"
            )
    except _Wrong as wrong:
        return Verdict(str(wrong))
    return Verdict(
        None,
        tuple(told.proven(found, key is not None, chain is not None, weights is not None)),
        tuple(told.stated(found)),
        tuple(told.not_proven(found, key is not None, chain is not None, weights is not None)),
    )


def read_folder(folder: Path) -> dict[str, bytes]:
    """The receipts of a folder (NUMBER.json) by their names. Raises ClueError when there is none."""
    try:
        found = {path.name: path.read_bytes() for path in sorted(folder.glob("[0-9]*.json"))}
    except OSError as error:
        raise ClueError(f"cannot read the receipts in {folder}: {error.strerror}") from error
    if not found:
        raise ClueError(f"{folder} has no receipts: name the folder with their files, such as 000001.json")
    return found


def _read(content: bytes) -> dict[str, Any]:
    """A single receipt: canonical, as the schema says, signed by the key that it names."""
    try:
        found = canonical.parse(content)
    except ClueError as error:
        raise _Wrong(str(error)) from error
    version = found.get("schema") if isinstance(found, dict) else None
    if isinstance(version, int) and version > receipt.SCHEMA:
        raise _Wrong(f"it was made by a newer runtime (receipt version {version}): update this one")
    facts = [found.get(name) for name in ("signature", "alg", "key")] if isinstance(found, dict) else []
    if facts and all(isinstance(fact, str) for fact in facts):
        unsigned = {name: value for name, value in found.items() if name != "signature"}
        if not is_signed(canonical.encode(unsigned), *facts):
            raise _Wrong("it was changed after it was signed: the signature is not right for the key in it")
    _check_schema(found)
    return dict(found)


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    text = resources.files("contract").joinpath("receipt.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def _check_schema(found: object) -> None:
    validator = _validator()
    if validator.is_valid(found):
        return
    from jsonschema.exceptions import best_match

    error = best_match(validator.iter_errors(found))
    where = "/".join(str(part) for part in error.absolute_path) or "top level"
    message = error.message if len(error.message) < 200 else error.message[:200] + "..."
    raise _Wrong(f"it is no receipt of clue-mobile: {where}: {message}")


def _check_chain(found: Mapping[str, Any], content: bytes, chain: Mapping[str, bytes]) -> None:
    links: dict[int, tuple[str, bytes]] = {}
    for name, other in chain.items():
        try:
            link = _read(other)
        except _Wrong as wrong:
            raise _Wrong(f"receipt {name} of the chain does not hold: {wrong}") from wrong
        if link["key"] != found["key"]:
            raise _Wrong(f"receipt {name} of the chain is signed by another key ({link['key']})")
        if link["number"] in links:
            first = links[link["number"]][0]
            raise _Wrong(f"{first} and {name} are both number {link['number']} of the chain")
        links[link["number"]] = (name, other)
    if links.get(found["number"], ("", b""))[1] != content:
        raise _Wrong(f"the chain has another receipt as number {found['number']}, or none")
    previous = receipt.FIRST
    for number in range(1, max(links) + 1):
        if number not in links:
            raise _Wrong(f"the chain has no number {number}: a receipt was removed")
        name, other = links[number]
        if json.loads(other)["previous"] != previous:
            raise _Wrong(f"the chain is broken at {name}: it does not follow the receipt before it")
        previous = receipt.sha256(other.decode())
