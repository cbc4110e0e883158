"""Makes the receipts of one store; its key is read or made when the first is needed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pi_runtime.bundle import Bundle
from pi_runtime.receipts import receipt
from pi_runtime.receipts.receipt import Make, Requested
from pi_runtime.receipts.signing import Signer

UNTIL_SEALED = "kept until the request is sealed"


class Issuer:
    """The functions of receipt.py for a store's folder and its bundle; use it while holding the lock."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self._folder, self._bundle = folder, bundle

    @functools.cached_property
    def signer(self) -> Signer:
        """The store's key. Raises ClueError as `Signer.open` does."""
        return Signer.open(self._folder)

    def forget(
        self,
        request: Requested,
        *,
        scalars: Mapping[str, float],
        before: str,
        after: str,
        generation: str,
        evidence: Mapping[str, Any],
        record: Mapping[str, Any],
    ) -> Make:
        """A request is done; `generation` is the file name of the weights before. Nothing was erased yet."""
        left = [
            ("store.db", f"the request's {request.samples} samples, encrypted: {UNTIL_SEALED}"),
            (f"generations/{generation}", f"the weights before, for a rollback: {UNTIL_SEALED}"),
            (f"the bundle's {self._bundle.weights.file}", f"the weights as delivered: {UNTIL_SEALED}"),
        ]
        return receipt.forget(
            self.signer,
            self._bundle,
            request,
            scalars=scalars,
            before=before,
            after=after,
            evidence=evidence,
            record=record,
            not_erased=left,
        )

    def rollback(self, *, before: str, after: str, requests: Iterable[int], classes: Iterable[str]) -> Make:
        """`requests` lost their effect, `classes` are no longer forgotten."""
        return receipt.rollback(
            self.signer, self._bundle, before=before, after=after, requests=requests, classes=classes
        )

    def seal(
        self,
        request: Requested,
        *,
        serving: str,
        erased: Iterable[str],
        not_erased: Iterable[tuple[str, str]],
    ) -> Make:
        """A request was made final."""
        return receipt.seal(
            self.signer, self._bundle, request, serving=serving, erased=erased, not_erased=not_erased
        )

    def adopt(self, *, before: str, after: str, policy: str, classes: Iterable[str]) -> Make:
        """A new bundle's weights serve and bring `classes` back."""
        return receipt.adopt(
            self.signer, self._bundle, before=before, after=after, policy=policy, classes=classes
        )
