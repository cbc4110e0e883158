"""A checked receipt in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Receipt = Mapping[str, Any]


def headline(found: Receipt) -> str:
    """One line: number, kind, what it is about."""
    return f"receipt {found['number']}, {found['kind']}, {found['created']}: {_subject(found)}"


def _subject(found: Receipt) -> str:
    match found["kind"]:
        case "forget":
            return f"request {found['request']['id']} made the model forget {_what(found)}"
        case "seal":
            return f"request {found['request']['id']} ({_what(found)}) was made final"
        case "rollback":
            gone = ", ".join(map(str, found["rolled_back"])) or "none"
            return f"earlier weights serve again; requests without effect now: {gone}"
        case _:
            back = ", ".join(found["classes"]) or "no forgotten class"
            return f"the weights of a new bundle serve; {back} came back with them"


def _what(found: Receipt) -> str:
    request = found["request"]
    if request["class"] is None:
        return f"{request['samples']} samples"
    return f"the class {request['class']['name']!r} with {request['samples']} samples"


def proven(found: Receipt, key: bool, chain: bool, weights: bool) -> Iterator[str]:
    """What the check has shown."""
    yield f"Nothing in this receipt was changed since it was signed ({found['alg']}, key {found['key']})."
    if key:
        yield "It was signed by the owner of the key that you gave."
    if chain:
        yield "The receipts in the folder form one unbroken chain from number 1; this one is part of it."
    if weights:
        yield "The weights file that you gave is the one that the receipt ends with."


def stated(found: Receipt) -> Iterator[str]:
    """What the device states in it."""
    yield f"At {found['created']} by the device's clock, {_subject(found)}."
    before, after = found["weights"]["before"], found["weights"]["after"]
    if before == after:
        yield f"The weights that serve have the SHA-256 {after}."
    else:
        yield f"The weights changed from SHA-256 {before} to {after}."
    yield f"The bundle was {found['bundle']['name']} (manifest {found['bundle']['manifest_sha256']})."
    if found["kind"] == "forget":
        yield from _forget(found)
    if "erased" in found:
        yield f"Erased: {', '.join(found['erased']) or 'nothing'}."
    for left in found.get("not_erased", ()):
        yield f"Not erased: {left['path']} ({left['reason']})."
    if found["kind"] == "adopt":
        yield f"The policy was {found['policy']}."


def _forget(found: Receipt) -> Iterator[str]:
    evidence, method, cost = found["evidence"], found["method"], found["cost"]
    yield (
        f"Method {method['name']}, batch {method['batch']}, seed {found['request']['seed']}: "
        f"{evidence['steps']} steps in {evidence['epochs_run']} epochs."
    )
    yield (
        f"On the samples that the method worked with, the accuracy went from "
        f"{evidence['forget_accuracy_before']:.1f} % to {evidence['forget_accuracy_after']:.1f} %."
    )
    held = evidence["held_out"]
    if held is not None:
        yield (
            f"On {held['samples']} samples of the request that the method never saw, it went from "
            f"{held['accuracy_before']:.1f} % to {held['accuracy_after']:.1f} %."
        )
    guard, collapse = evidence["guard"], evidence["collapse"]
    if guard is not None:
        yield (
            f"On {guard['images']} images of the other classes it went from "
            f"{guard['accuracy_before']:.1f} % to {guard['accuracy_after']:.1f} %."
        )
    if collapse is not None:
        yield (
            f"On {collapse['probes']} made-up images the model answered as before in "
            f"{collapse['kept']:.1f} % (at least {collapse['kept_at_least']:.1f} % were asked for)."
        )
    energy = "energy not measured"
    if cost["energy_j"] is not None:
        energy = f"{cost['energy_j']:.1f} J {cost['energy_kind']} ({cost['energy_source']})"
    yield f"It took {cost['wall_s']:.1f} s on {found['device']['model']}; {energy}."


def not_proven(found: Receipt, key: bool, chain: bool, weights: bool) -> Iterator[str]:
    """What nobody may conclude from it."""
    if "statement" in found:
        yield found["statement"]
    if "storage" in found:
        yield found["storage"]
    yield (
        "The figures and hashes are the device's own word: who controls the device and its key can sign "
        "anything, and the time is its own clock."
    )
    if found["kind"] == "forget":
        if found["evidence"]["held_out"] is None:
            yield "No samples were held out: the accuracy is of those that the method worked with."
        if found["evidence"]["guard"] is None and found["evidence"]["collapse"] is None:
            yield "How well the other classes are still recognised was not measured."
        elif found["evidence"]["guard"] is None:
            yield "The other classes were checked by a signal only, without images of them."
    if not key:
        yield "Who owns the key was not checked: give --key with the device's receipt.pub."
    if not chain:
        yield "Whether receipts before it are missing was not checked: give --chain with their folder."
    else:
        yield "Receipts after the last one in the folder may exist: a chain does not show its end."
    if not weights:
        yield "That the device serves these weights was not checked: give --weights with its weights file."
