from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy

from pi_runtime import Bundle, ClueError
from pi_runtime.plan import RunNode, Variant, leaves

Manifest = dict[str, Any]


def test_opens_what_export_wrote(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    assert (bundle.name, bundle.classes, bundle.input_shape) == ("toy", ("cat", "dog", "10"), (1, 4, 4))
    assert bundle.programs["step"].outputs[2].role == "metric"
    assert bundle.values["params"].weights_key == "params"
    assert bundle.sha256 == hashlib.sha256((toy_bundle / "manifest.json").read_bytes()).hexdigest()


def test_a_flipped_byte_in_any_file_is_found_and_named(own_bundle: Path) -> None:
    paths = [path for path in sorted(own_bundle.rglob("*")) if path.is_file()]
    assert len(paths) >= 15
    for path in paths:
        content = path.read_bytes()
        # In manifest.sha256 only the hash is read, not the file name behind it.
        place = 32 if path.name == "manifest.sha256" else len(content) // 2
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        named = "manifest" if path.name.startswith("manifest.") else str(path.relative_to(own_bundle))
        with pytest.raises(ClueError, match=named):
            Bundle.open(own_bundle)
        path.write_bytes(content)
    Bundle.open(own_bundle)


def test_missing_and_cut_files_are_found_even_without_verify(own_bundle: Path) -> None:
    path = own_bundle / "golden" / "step.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ClueError, match=r"golden/step.safetensors has \d+ bytes instead of"):
        Bundle.open(own_bundle, verify=False)
    path.unlink()
    with pytest.raises(ClueError, match=r"golden/step.safetensors is missing"):
        Bundle.open(own_bundle, verify=False)


def test_a_bundle_without_its_runtime_folder_is_whole(own_bundle: Path) -> None:
    """An app ships what it needs; where the folder is there, its files are checked like all others."""

    def listed(manifest: Manifest) -> None:
        sha256 = hashlib.sha256(b"abc").hexdigest()
        manifest["files"].append({"file": "runtime/build", "bytes": 3, "sha256": sha256})

    toy.edit(own_bundle, listed)
    Bundle.open(own_bundle)
    (own_bundle / "runtime").mkdir()
    with pytest.raises(ClueError, match=r"runtime/build is missing"):
        Bundle.open(own_bundle)
    (own_bundle / "runtime" / "build").write_bytes(b"abd")
    with pytest.raises(ClueError, match=r"runtime/build was changed"):
        Bundle.open(own_bundle)
    (own_bundle / "runtime" / "build").write_bytes(b"abc")
    Bundle.open(own_bundle)


def test_verify_can_be_left_out(own_bundle: Path) -> None:
    path = own_bundle / "README.md"
    path.write_bytes(path.read_bytes()[::-1])
    assert Bundle.open(own_bundle, verify=False).name == "toy"


def test_other_files_in_the_folder_do_not_matter(own_bundle: Path) -> None:
    (own_bundle / "runtime").mkdir()
    (own_bundle / "runtime" / "build.log").write_text("pip was here")
    Bundle.open(own_bundle)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_a_bundle_without_manifest_or_hash(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(ClueError, match="manifest"):
        Bundle.open(own_bundle)


def test_a_newer_schema_says_so_before_anything_else(own_bundle: Path) -> None:
    def newer(manifest: Manifest) -> None:
        manifest["schema_version"] = 3
        manifest["unheard_of"] = True
        del manifest["plan"]

    with pytest.raises(ClueError, match=r"newer clue-mobile \(manifest version 3.*update the runtime"):
        Bundle.open(toy.edit(own_bundle, newer))


@pytest.mark.parametrize("text", ["[]", "{", '{"schema_version": NaN}', "\xff", '{"schema_version": "1"}'])
def test_a_manifest_that_is_no_manifest(own_bundle: Path, text: str) -> None:
    content = text.encode("latin-1")
    (own_bundle / "manifest.json").write_bytes(content)
    (own_bundle / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest())
    with pytest.raises(ClueError, match=r"manifest\.json"):
        Bundle.open(own_bundle)


def test_a_schema_error_tells_the_place(own_bundle: Path) -> None:
    def wrong(manifest: Manifest) -> None:
        manifest["method"]["batch"] = 0

    with pytest.raises(ClueError, match="method/batch: 0 is less than the minimum"):
        Bundle.open(toy.edit(own_bundle, wrong))


def test_files_cannot_lead_out_of_the_bundle(own_bundle: Path) -> None:
    outside = own_bundle.parent / "outside"
    (own_bundle / "README.md").rename(outside)
    (own_bundle / "README.md").symlink_to(outside)
    with pytest.raises(ClueError, match=r"README.md: README.md is a link, and a bundle has none"):
        Bundle.open(own_bundle)

    def climb(manifest: Manifest) -> None:
        manifest["weights"]["file"] = "programs/../../weights.safetensors"

    with pytest.raises(ClueError, match="weights/file"):
        Bundle.open(toy.edit(own_bundle, climb))


def _set(*path: Any, to: Any) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        here: Any = manifest
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = to

    return change


def _port(program: str, kind: str, number: int, **to: Any) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["programs"][program][kind][number].update(to)


def _plan(*nodes: Any) -> Callable[[Manifest], None]:
    return _set("plan", to=list(nodes))


def _batches(size: int, *body: Any, **options: Any) -> dict[str, Any]:
    return {"loop": "batches", "size": size, "body": list(body), **options}


def _epochs(*body: Any) -> dict[str, Any]:
    return {"loop": "epochs", "count": 1, "body": list(body)}


def _stop(**changes: Any) -> dict[str, Any]:
    return {"stop": {"program": "predict", "every": 1, "samples": 5, "accuracy_at_most": 10} | changes}


def _variant(program: str, **zeros: int) -> dict[str, Any]:
    return {"run": "step", "instead": [{"run": program, "zeros": zeros}]}


def _version_2(node: dict[str, Any]) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        manifest["schema_version"] = 2
        manifest["plan"] = [_batches(4, node)]

    return change


STEP = ("programs", "step")
RUN = {"run": "step"}
CONTRADICTIONS: list[tuple[str, Callable[[Manifest], None]]] = [
    ("there is no program predict_1", lambda m: m["programs"].pop("predict_1")),
    ("predict_1 must have batch 1", lambda m: m["programs"].update(predict_1=m["programs"]["predict"])),
    ("program predict must take state and x", lambda m: m["programs"]["predict"]["inputs"].pop()),
    ("program predict must take state and x", _port("predict", "outputs", 0, name="scores")),
    (r"logits must be \[4, 3\]", _port("predict", "outputs", 0, shape=[4, 5])),
    ("no state 'weights'", _port("step", "inputs", 0, binds="weights")),
    ("no carry 'params'", _port("step", "inputs", 2, binds="params")),
    (r"port velocity: shape \[50\] does not fit", _port("step", "inputs", 2, shape=[50])),
    (r"port x: shape \[4, 1, 4, 5\]", _port("step", "inputs", 4, shape=[4, 1, 4, 5])),
    ("no batch 'label'", _port("step", "inputs", 5, binds="label")),
    (r"port teach: shape \[3\]", _port("step", "inputs", 6, shape=[3])),
    ("no random 'noisy'", _port("note", "inputs", 3, binds="noisy")),
    ("no scalar 'rate'", _port("step", "inputs", 8, binds="rate")),
    (r"port lr: shape \[1\]", _port("step", "inputs", 8, shape=[1])),
    (r"port loss: shape \[4\]", _port("step", "outputs", 2, shape=[4])),
    ("role metric is not possible", _port("step", "inputs", 2, role="metric")),
    ("role batch is not possible", _port("step", "outputs", 1, role="batch")),
    ("two ports of one name", _port("step", "outputs", 1, name="velocity")),
    ("golden inputs are not its inputs", lambda m: m["programs"]["step"]["golden"]["inputs"].pop("x")),
    (
        "golden outputs are not its outputs",
        _set(*STEP, "golden", "outputs", "more", to={"stride": 1, "tolerance": 1.0}),
    ),
    ("params does not start from the weights", _set("values", "params", "init", to={"zeros": True})),
    ("two state values start from params", _set("values", "frozen", "init", to={"weights": "params"})),
    ("teach does not start from zeros", _set("values", "teach", "init", to={"random": "other"})),
    ("starts from later, which is no earlier", _set("values", "origin", "init", to={"value": "later"})),
    ("starts from frozen, which is no earlier", _set("values", "origin", "init", to={"value": "frozen"})),
    ("no random stream of its shape", _set("values", "kick", "init", to={"random": "noise"})),
    ("extra/gone is used but not in the list",
     _set("values", "importance", "init", to={"file": "extra/gone", "key": "a"})),
    ("low above high", _set("randoms", "level", "low", to=9)),
    ("last axis of its shape must be its classes", _set("randoms", "other", "classes", to=4)),
    ("state entry scale lies in buffers", _set("state", 2, "value", to="buffers")),
    ("two different SHA-256", _set("weights", "sha256", to="0" * 64)),
    ("two different SHA-256", _set("programs", "note", "files", "onnx", "sha256", to="0" * 64)),
    ("two different SHA-256", _set("programs", "note", "golden", "sha256", to="0" * 64)),
    ("a phase of the plan is called verify", _plan({"phase": "verify", "body": [RUN]})),
    ("names the scalar 'rounds'", _plan({"loop": "repeat", "count": "rounds", "body": [RUN]})),
    ("runs 'jump', which is no program", _plan({"run": "jump"})),
    ("takes batches of 4 but the plan runs it outside", _plan(RUN)),
    ("takes batches of 4 but the plan runs it in batches of 8", _plan(_batches(8, RUN))),
    ("batches of 3 inside batches of 8", _plan(_batches(8, _batches(3, {"run": "shrink"})))),
    ("batches of 4 inside batches of 8",
     _plan(_batches(8, _batches(4, RUN, order="stored"), order="shuffled"))),
    ("batches of 4 inside batches of 8", _plan(_batches(8, _batches(4, RUN, augment="crop_flip")))),
    ("resets 'speed', which is no value", _plan({"reset": ["speed"]})),
    ("binds 'rate', which is no port", _plan(_batches(4, {"run": "step", "bind": {"rate": "lr"}}))),
    ("no scalar 'teach'", _plan(_batches(4, {"run": "step", "bind": {"lr": "teach"}}))),
    ("step writes one value twice", _port("step", "outputs", 1, role="state", binds="params")),
    ("a manifest of version 1 cannot have", _plan(_batches(4, _variant("step", velocity=51)))),
    ("runs 'jump', which is no program", _version_2(_variant("jump", velocity=51))),
    ("program note has other ports than step", _version_2(_variant("note", velocity=51))),
    ("asks for 52 zeros of 'velocity'", _version_2(_variant("step", velocity=52))),
    ("asks for 1 zeros of 'speed'", _version_2(_variant("step", speed=1))),
    ("asks for 1 zeros of 'teach'", _version_2(_variant("step", teach=1))),
    ("stop outside of any epochs loop", _plan(_batches(4, _stop()))),
    ("program step must take state and x", _plan(_epochs(_stop(program="step")))),
    ("names the scalar 'often'", _plan(_epochs(_stop(every="often")))),
    ("names the scalar 'low'", _plan(_epochs(_stop(accuracy_at_most="low")))),
]  # fmt: skip


@pytest.mark.parametrize(("message", "change"), CONTRADICTIONS)
def test_contradictions_are_refused_at_open(
    own_bundle: Path, message: str, change: Callable[[Manifest], None]
) -> None:
    with pytest.raises(ClueError, match=message):
        Bundle.open(toy.edit(own_bundle, change))


def test_inner_batches_may_repeat_what_the_outermost_says(own_bundle: Path) -> None:
    inner = _batches(4, RUN, order="shuffled", augment="none")
    Bundle.open(toy.edit(own_bundle, _plan(_batches(8, inner))))


def test_variants_with_the_ports_of_their_program_are_read(own_bundle: Path) -> None:
    bundle = Bundle.open(toy.edit(own_bundle, _version_2(_variant("step", velocity=51))))
    ((_, node),) = leaves(bundle.plan)
    assert isinstance(node, RunNode)
    assert node.instead == (Variant("step", {"velocity": 51}),)


def test_labels_by_name_or_index(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    # A class whose name is a number is found by its name first.
    assert [bundle.label(label) for label in ("dog", 1, "1", "10", 0)] == [1, 1, 1, 2, 0]
    for label in (3, -1, "3"):
        with pytest.raises(ClueError, match="out of range: toy has classes 0 to 2"):
            bundle.label(label)
    with pytest.raises(ClueError, match="unknown class 'dgo': did you mean 'dog'"):
        bundle.label("dgo")


def test_scalars_are_replaced_by_name(toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    assert bundle.merged_scalars({"lr": 1})["lr"] == 1
    assert bundle.merged_scalars(None) == toy.SCALARS
    with pytest.raises(ClueError, match="unknown scalar 'epoch': did you mean 'epochs'"):
        bundle.merged_scalars({"epoch": 1})
    for value in (float("nan"), float("-inf"), 3.5e38):
        with pytest.raises(ClueError, match="must be finite"):
            bundle.merged_scalars({"lr": value})


def test_the_toy_is_what_the_schema_allows(toy_bundle: Path) -> None:
    """Guards the tests above: the bundle they start from has no other mistake."""
    assert json.loads((toy_bundle / "manifest.json").read_text())["plan"] == toy.PLAN
