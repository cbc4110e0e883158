"""What a receipt says (contract/receipt.schema.json), and how it is signed and chained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from pi_runtime.bundle import Bundle
from pi_runtime.receipts import canonical
from pi_runtime.receipts.signing import Signer

SCHEMA = 1
FIRST = "0" * 64
"""`previous` of the first receipt."""
STATEMENT = (
    "The method is approximate: it gives no formal guarantee that nothing of the samples is left in the "
    "weights."
)
STORAGE = (
    "Files were overwritten and removed. Flash storage may keep old blocks until it uses them again: "
    "samples in them are unreadable since their key was destroyed, weights are not."
)

Make = Callable[[str, int], str]
"""Given the previous receipt's SHA-256 and this one's number: the canonical JSON, signed."""

_EVIDENCE = ("steps", "epochs_run", "stopped_early", "forget_accuracy_before", "forget_accuracy_after")
_CHECKED = ("accuracy_at_most", "held_out", "guard", "collapse")
_COST = ("wall_s", "cpu_s", "peak_mem_bytes", "energy_j", "energy_source", "energy_scope", "energy_kind")


class Requested(Protocol):
    """What a receipt says of a request; a row of the store has it. `label` is None for a set of samples."""

    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> int | None: ...
    @property
    def samples(self) -> int: ...
    @property
    def seed(self) -> int: ...


def _request(request: Requested, classes: Sequence[str]) -> dict[str, Any]:
    named = None if request.label is None else {"index": request.label, "name": classes[request.label]}
    about = {"id": request.id, "kind": request.kind, "class": named}
    return {**about, "samples": request.samples, "seed": request.seed}


def sha256(receipt: str) -> str:
    """What the next receipt has as `previous`: the SHA-256 of the whole canonical text."""
    return hashlib.sha256(receipt.encode()).hexdigest()


def forget(
    signer: Signer,
    bundle: Bundle,
    request: Requested,
    *,
    scalars: Mapping[str, float],
    before: str,
    after: str,
    evidence: Mapping[str, Any],
    record: Mapping[str, Any],
    not_erased: Iterable[tuple[str, str]],
    created: str | None = None,
) -> Make:
    """The receipt of a request that is done.

    `before` and `after`: SHA-256 of the weights files. `evidence`: as forget.py and verify.py have filled it.
    `record`: the cost record of the phase "request". `not_erased`: (what is still there, why).
    """
    return _maker(
        signer,
        "forget",
        bundle,
        created,
        {
            "request": _request(request, bundle.classes),
            "method": {"name": bundle.method, "batch": bundle.batch, "scalars": dict(scalars)},
            "weights": {"before": before, "after": after},
            "evidence": {name: evidence[name] for name in _EVIDENCE}
            | {name: evidence.get(name) for name in _CHECKED},
            "cost": {name: record[name] for name in _COST},
            "device": record["device"],
            "runtime": record["runtime"],
            "not_erased": _pairs(not_erased),
            "statement": STATEMENT,
        },
    )


def rollback(
    signer: Signer,
    bundle: Bundle,
    *,
    before: str,
    after: str,
    requests: Iterable[int],
    classes: Iterable[str],
    created: str | None = None,
) -> Make:
    """The receipt of a rollback: the ids of the requests whose effect it took away, and their classes."""
    body = {
        "weights": {"before": before, "after": after},
        "rolled_back": sorted(requests),
        "classes": sorted(classes),
    }
    return _maker(signer, "rollback", bundle, created, body)


def seal(
    signer: Signer,
    bundle: Bundle,
    request: Requested,
    *,
    serving: str,
    erased: Iterable[str],
    not_erased: Iterable[tuple[str, str]],
    created: str | None = None,
) -> Make:
    """The receipt of a sealing: the SHA-256 of the weights that serve, what was erased, what could not be."""
    body = {
        "request": _request(request, bundle.classes),
        "weights": {"before": serving, "after": serving},
        "erased": sorted(erased),
        "not_erased": _pairs(not_erased),
        "storage": STORAGE,
        "statement": STATEMENT,
    }
    return _maker(signer, "seal", bundle, created, body)


def adopt(
    signer: Signer,
    bundle: Bundle,
    *,
    before: str,
    after: str,
    policy: str,
    classes: Iterable[str],
    created: str | None = None,
) -> Make:
    """The receipt of a new bundle's weights: `classes` were forgotten and are back with them."""
    body = {
        "weights": {"before": before, "after": after},
        "policy": policy,
        "classes": sorted(classes),
    }
    return _maker(signer, "adopt", bundle, created, body)


def _pairs(not_erased: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "reason": reason} for path, reason in sorted(not_erased)]


def _maker(signer: Signer, kind: str, bundle: Bundle, created: str | None, body: Mapping[str, Any]) -> Make:
    common = {
        "schema": SCHEMA,
        "kind": kind,
        "created": created or datetime.now(UTC).isoformat(timespec="seconds"),
        "alg": signer.alg,
        "key": signer.key,
        "bundle": {"name": bundle.name, "manifest_sha256": bundle.sha256},
    }

    def make(previous: str, number: int) -> str:
        unsigned = {**common, **body, "previous": previous, "number": number}
        signature = signer.sign(canonical.encode(unsigned))
        return canonical.dumps({**unsigned, "signature": signature})

    return make
