"""Writes contract/receipts/golden.json, receipts of fixed content signed with a fixed key, for runtimes in
other languages: `python tests/pi_runtime/golden_receipts.py`. A test holds that the file is what this gives.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pi_runtime.bundle import Bundle
from pi_runtime.receipts import canonical, receipt
from pi_runtime.receipts.signing import Signer

FILE = Path(__file__).parents[2] / "contract" / "receipts" / "golden.json"
# The secret key of the first test of RFC 8032, section 7.1.
KEY = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
# A receipt of a bundle needs no more of it than this.
BUNDLE = cast(
    Bundle,
    SimpleNamespace(
        name="f\u00eate \u20ac",
        sha256="11" * 32,
        method="clue",
        batch=32,
        classes=("cat", "dog\u2019s", "owl"),
    ),
)
RECORD = {
    "wall_s": 41.25,
    "cpu_s": 39.999,
    "peak_mem_bytes": 91226112,
    "energy_j": None,
    "energy_source": None,
    "energy_scope": None,
    "energy_kind": None,
    "device": {
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "os": "Linux",
        "soc": "bcm2712",
        "ram_bytes": 8453111808,
    },
    "runtime": {"name": "onnx", "version": "1.20.1", "backend": "CPUExecutionProvider", "threads": 4},
}
EVIDENCE = {
    "steps": 64,
    "epochs_run": 2,
    "stopped_early": True,
    "forget_accuracy_before": 96.875,
    "forget_accuracy_after": 100.0 / 3,
    "accuracy_at_most": 35.0,
    "held_out": {"samples": 30, "accuracy_before": 90.0, "accuracy_after": 10.0},
    "guard": None,
    "collapse": {
        "probes": 320,
        "kept": 62.1875,
        "kept_at_least": 30.0,
        "largest_share_at_most": 98.0,
        "largest_share_before": 21.5625,
        "largest_share_after": 30.3125,
    },
}
CREATED = "2026-01-02T03:04:05+00:00"


def chain() -> list[str]:
    """A receipt of each kind, in a chain."""
    signer = Signer.of(KEY)
    request = SimpleNamespace(id=1, kind="class", label=1, samples=300, seed=2**53 - 1)
    some = SimpleNamespace(id=2, kind="samples", label=None, samples=12, seed=0)
    scalars = {"lr": 1e-7, "tau": 0.003, "epochs": 2.0, "large": 1e21}
    left = [
        ("weights.safetensors", "the bundle is only read"),
        ("store.db", "kept until the request is sealed"),
    ]
    fixed: dict[str, Any] = {"created": CREATED}
    done = {"scalars": scalars, "evidence": EVIDENCE, "record": RECORD, "not_erased": left, **fixed}
    fewer = {**EVIDENCE, "held_out": None, "collapse": None}
    guard = {"images": 72, "accuracy_before": 87.5, "accuracy_after": 86.0, "drop_at_most": 20.0}
    energy = {"energy_j": 12.5, "energy_source": "pmic", "energy_scope": "board", "energy_kind": "estimated"}
    again = {**done, "evidence": {**fewer, "guard": guard}, "record": {**RECORD, **energy}}
    makes = [
        receipt.forget(signer, BUNDLE, request, before="22" * 32, after="33" * 32, **done),
        receipt.seal(
            signer,
            BUNDLE,
            request,
            serving="33" * 32,
            erased=["keys/2.key", "generations/000001.safetensors"],
            not_erased=[left[0]],
            **fixed,
        ),
        receipt.forget(signer, BUNDLE, some, before="33" * 32, after="44" * 32, **again),
        receipt.rollback(
            signer, BUNDLE, before="44" * 32, after="33" * 32, requests=[2], classes=[], **fixed
        ),
        receipt.adopt(
            signer, BUNDLE, before="33" * 32, after="55" * 32, policy="serve", classes=["dog\u2019s"], **fixed
        ),
    ]
    texts: list[str] = []
    for number, make in enumerate(makes, 1):
        texts.append(make(receipt.sha256(texts[-1]) if texts else receipt.FIRST, number))
    return texts


def golden() -> dict[str, Any]:
    """What the file holds."""
    texts = chain()
    return {
        "about": "Receipts as they must be, byte for byte: canonical JSON of fixed content, signed with "
        "Ed25519 by the key of the first test of RFC 8032, section 7.1.",
        "private_key": KEY.hex(),
        "public_key": Signer.of(KEY).key,
        "receipts": [
            {
                "text": text,
                "sha256": receipt.sha256(text),
                "signed": canonical.dumps({k: v for k, v in json.loads(text).items() if k != "signature"}),
            }
            for text in texts
        ],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(golden(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
