from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from faults import Faults
from safetensors.numpy import load_file, save_file

from pi_runtime import ClueError, Runtime, files
from pi_runtime.forget import RequestResult
from pi_runtime.onnx_engine import OnnxSession
from pi_runtime.request import Progress

NO_STOP = {"check_every": 0}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def relative(found: Any, expected: Any) -> float:
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


# --- a method that the runtime has never seen


@pytest.mark.parametrize(("n", "seed", "scalars"), [
    (19, 5, {}),  # the stop is taken in the first epoch
    (19, 5, NO_STOP),
    (8, 6, NO_STOP | {"inner": 3, "epochs": 2}),
    (3, 7, NO_STOP),  # fewer samples than a batch
    (21, 8, {"stop_at": 0, "check_every": 1, "lr": 0.005}),  # measured often, late or never low enough
])  # fmt: skip
def test_the_toy_method_gives_what_numpy_gives(
    runtime: Runtime, n: int, seed: int, scalars: dict[str, float]
) -> None:
    images = toy.images(n, 0)
    runtime.add(images, "cat")
    result = runtime.forget("cat", seed=seed, scalars=scalars)
    expected = toy.Reference(images, 0, seed, toy.SCALARS | scalars).run()
    assert (result.status, result.reason) == ("done", None)
    weights = load_file(runtime.serving.path)
    assert relative(weights["params"], expected.params) < 1e-6
    assert [stop["accuracy"] for stop in result.evidence["stops"]] == expected.stops
    assert result.evidence["metrics"]["learn"]["loss"] == pytest.approx(expected.losses, rel=1e-5)
    assert result.evidence["steps"] == expected.steps
    assert result.evidence["epochs_run"] == len(expected.losses)
    assert result.evidence["stopped_early"] == any(
        stop <= scalars.get("stop_at", 20) for stop in expected.stops
    )
    assert result.evidence["samples"] == n
    assert result.evidence["forget_accuracy_before"] == 100
    assert result.evidence["forget_accuracy_after"] == expected.accuracy(n)


def test_the_new_weights_serve_at_once_in_every_open_runtime(
    runtime: Runtime, toy_bundle: Path, tmp_path: Path
) -> None:
    cats, dogs = toy.images(9, 0, seed=3), toy.images(9, 1, seed=3)
    runtime.add(toy.images(19, 0), "cat")
    with Runtime.open(toy_bundle, tmp_path / "store", threads=1) as other:
        assert np.all(other.predict(cats).argmax(1) == 0)
        first = runtime.serving
        result = runtime.forget("cat", seed=5)
        for one in (runtime, other):
            assert one.forgotten == ["cat"]
            assert np.mean(one.predict(cats).argmax(1) == 0) < 0.25
            assert np.all(one.predict(dogs).argmax(1) == 1)
            assert one.serving.id == result.generation != first.id
    # The old weights stay, byte for byte those of the bundle.
    assert sha256(first.path) == first.sha256 == sha256(toy_bundle / "weights.safetensors")


def test_arrays_that_no_value_holds_and_frozen_ones_are_kept(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    runtime.forget("cat", seed=5)
    weights = load_file(runtime.serving.path)
    assert set(weights) == {"params", "frozen", "spare"}
    assert np.array_equal(weights["spare"], toy.IMPORTANCE)
    assert np.array_equal(weights["frozen"], toy.FROZEN)


def test_the_same_seed_gives_the_same_file_and_another_does_not(toy_bundle: Path, tmp_path: Path) -> None:
    hashes = []
    for number, seed in enumerate((5, 5, 6)):
        with Runtime.open(toy_bundle, tmp_path / str(number), threads=1) as runtime:
            runtime.add(toy.images(19, 0), "cat")
            runtime.forget("cat", seed=seed, scalars=NO_STOP)
            hashes.append(runtime.serving.sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_drawn_seed_is_on_record_and_reproduces(runtime: Runtime, toy_bundle: Path, tmp_path: Path) -> None:
    runtime.add(toy.images(19, 0), "cat")
    result = runtime.forget("cat")
    assert runtime.store.requests()[0].seed == result.seed
    with Runtime.open(toy_bundle, tmp_path / "again", threads=1) as again:
        again.add(toy.images(19, 0), "cat")
        again.forget("cat", seed=result.seed)
        assert again.serving.sha256 == runtime.serving.sha256


def test_a_second_class_starts_from_the_weights_that_serve(runtime: Runtime) -> None:
    for label, name in ((0, "cat"), (1, "dog")):
        runtime.add(toy.images(19, label), name)
        assert runtime.forget(name, seed=5).status == "done"
    assert runtime.forgotten == ["cat", "dog"]
    assert runtime.serving.request_id == 2
    assert np.mean(runtime.predict(toy.images(20, 0, seed=4)).argmax(1) == 0) < 0.5
    assert np.mean(runtime.predict(toy.images(20, 1, seed=4)).argmax(1) == 1) < 0.5
    assert np.all(runtime.predict(toy.images(20, 2, seed=4)).argmax(1) == 2)


# --- prediction


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 9])
def test_logits_do_not_depend_on_how_images_fall_into_batches(runtime: Runtime, n: int) -> None:
    images = np.concatenate([toy.images(4, label, seed=1) for label in range(3)])[:n]
    x = images.transpose(0, 3, 1, 2) / np.float32(255)
    logits = runtime.predict(images)
    assert (logits.dtype, logits.shape) == (np.float32, (n, 3))
    np.testing.assert_allclose(logits, toy.logits(toy.params(), toy.FROZEN, x), rtol=1e-5, atol=1e-6)


WRONG = [
    (np.zeros((2, 4, 5, 1), np.uint8), r"uint8 \[2, 4, 5, 1\]: they must be uint8 \[N, 4, 4, 1\]"),
    (np.zeros((4, 4, 1), np.uint8), r"uint8 \[4, 4, 1\]"),
    (np.zeros((2, 1, 4, 4), np.uint8), r"uint8 \[2, 1, 4, 4\]"),
    (np.zeros((2, 4, 4, 1), np.float32), r"float32 \[2, 4, 4, 1\]"),
]


@pytest.mark.parametrize(("images", "message"), WRONG)
def test_wrong_images_are_refused(runtime: Runtime, images: Any, message: str) -> None:
    with pytest.raises(ClueError, match=message):
        runtime.predict(images)
    with pytest.raises(ClueError, match=message):
        runtime.add(images, "cat")
    assert runtime.store.sample_ids(0) == []


# --- requests that must not change what is served


@dataclasses.dataclass
class Watch:
    """Asserts that the weights and predictions are those of the start."""

    runtime: Runtime

    def __post_init__(self) -> None:
        self.images = toy.images(8, 0, seed=9)
        self.before = (self.runtime.serving, self.runtime.predict(self.images).tobytes())

    def unchanged(self, status: str | None = None) -> None:
        runtime = self.runtime
        assert (runtime.serving, runtime.predict(self.images).tobytes()) == self.before
        assert runtime.forgotten == []
        kept = [path.name for path in runtime.serving.path.parent.iterdir()]
        assert kept == [runtime.serving.path.name]
        assert [request.status for request in runtime.store.requests()] == ([status] if status else [])


@pytest.fixture
def watch(runtime: Runtime) -> Watch:
    runtime.add(toy.images(19, 0), "cat")
    return Watch(runtime)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"label": "dog"}, "no samples of 'dog' are stored: add some first"),
    ({"label": 3}, "label 3 is out of range"),
    ({"label": "cow"}, "unknown class 'cow'"),
    ({"label": "cat", "scalars": {"momentum": 1.0}}, "unknown scalar 'momentum'"),
    ({"label": "cat", "seed": -1}, "seed -1 is out of range"),
    ({"label": "cat", "seed": 1 << 53}, "seed 9007199254740992 is out of range"),
    ({"label": "cat", "verify_at_most": 101}, "from 0 to 100"),
    ({"label": "cat", "scalars": {"lr": math.nan}}, "must be finite"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(watch: Watch, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        watch.runtime.forget(**arguments)
    watch.unchanged()


@pytest.mark.parametrize(("arguments", "reason"), [
    ({"scalars": {"lr": 1e-6}}, "the forget accuracy is 100.0 %, it had to come down to 25.0 %"),
    ({"verify_at_most": 0}, "the forget accuracy is 5.3 %, it had to come down to 0.0 %"),
    ({"scalars": {"epochs": 0, "lr_last": 0}}, "the weights did not change"),
    ({"scalars": {"lr": 1e38}}, "became nan|became inf|are not finite"),
])  # fmt: skip
def test_an_outcome_that_fails_its_checks_is_not_served(
    watch: Watch, arguments: dict[str, Any], reason: str
) -> None:
    result = watch.runtime.forget("cat", seed=5, **arguments)
    assert result.status == "failed"
    assert result.reason is not None
    assert any(part in result.reason for part in reason.split("|"))
    assert result.generation == watch.before[0].id
    assert {record["status"] for record in result.records} == {"failed"}
    assert watch.runtime.store.requests()[0].reason == result.reason
    watch.unchanged("failed")


@pytest.mark.parametrize(("lr", "reason"), [
    (3e38, "the new params are not finite"),
    (1e38, "the logits of predict are not finite"),  # finite weights, too large for their products
])  # fmt: skip
def test_a_last_step_that_overflows_is_not_served(runtime: Runtime, lr: float, reason: str) -> None:
    runtime.add(toy.images(4, 0), "cat")
    watch = Watch(runtime)
    result = runtime.forget("cat", seed=5, scalars={"epochs": 0, "lr_last": lr})
    assert (result.status, result.reason) == ("failed", reason)
    watch.unchanged("failed")


def test_cancel_between_any_two_operations(watch: Watch) -> None:
    operations = watch.runtime.dry_run("cat", scalars=NO_STOP)["operations"]
    assert isinstance(operations, int)
    for done in (0, 1, operations // 2, operations - 1):
        seen: list[Progress] = []
        result = watch.runtime.forget(
            "cat",
            scalars=NO_STOP,
            progress=seen.append,
            cancel=lambda seen=seen, done=done: len(seen) >= done,
        )
        assert (result.status, len(seen)) == ("cancelled", done)
    assert watch.runtime.serving == watch.before[0]
    assert {request.status for request in watch.runtime.store.requests()} == {"cancelled"}
    assert watch.runtime.forget("cat", seed=5).status == "done"


def test_progress_counts_operations(watch: Watch) -> None:
    seen: list[Progress] = []
    watch.runtime.forget("cat", seed=5, scalars=NO_STOP, progress=seen.append)
    total = watch.runtime.dry_run("cat", scalars=NO_STOP)["operations"]
    assert [p.done for p in seen] == list(range(1, len(seen) + 1))
    assert {p.total for p in seen} == {total} == {len(seen)}
    assert [p.phase for p in seen][:1] == ["teach"]
    assert [p.phase for p in seen][-1:] == ["finish"]
    assert {p.epoch for p in seen} == {0, 1, 2}
    assert "loss" in seen[-1].metrics


def test_an_interrupt_ends_the_request_as_cancelled(watch: Watch) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch.runtime.forget("cat", progress=interrupt)
    watch.unchanged("cancelled")


def test_an_interrupt_after_the_swap_keeps_the_new_weights(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "append_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        watch.runtime.forget("cat", seed=5)
    assert [request.status for request in watch.runtime.store.requests()] == ["done"]
    assert watch.runtime.serving.request_id == 1
    assert np.mean(watch.runtime.predict(watch.images).argmax(1) == 0) < 0.25


def test_the_state_goes_back_and_forth_between_two_arrays(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = OnnxSession.run, []

    def note(self: OnnxSession, inputs: Any, outputs: Any) -> None:
        if "params_new" in outputs:
            seen.append((inputs["params"].ctypes.data, outputs["params_new"].ctypes.data))
        run(self, inputs, outputs)

    monkeypatch.setattr(OnnxSession, "run", note)
    watch.runtime.forget("cat", seed=5, scalars=NO_STOP)
    assert len(seen) > 30
    assert len({address for pair in seen for address in pair}) == 2
    # What one step writes is what the next reads, in the same place.
    assert all(after[0] == before[1] for before, after in itertools.pairwise(seen))


def test_an_engine_that_fails_half_way(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = OnnxSession.run, []

    def fail_later(self: OnnxSession, *arrays: Any) -> None:
        calls.append(1)
        if len(calls) == 20:
            raise ClueError("program step failed in onnxruntime: out of memory")
        run(self, *arrays)

    monkeypatch.setattr(OnnxSession, "run", fail_later)
    with pytest.raises(ClueError, match="out of memory"):
        watch.runtime.forget("cat", seed=5)
    watch.unchanged("failed")
    assert "out of memory" in watch.runtime.store.requests()[0].reason


def attempt(runtime: Runtime) -> RequestResult | str:
    """The result of a request, or the sentence of its error."""
    try:
        return runtime.forget("cat", seed=5)
    except ClueError as error:
        return str(error)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_every_write_that_can_fail(toy_bundle: Path, tmp_path: Path, faults: Faults, call: str) -> None:
    """Lets the k-th call fail for every k, until a request gets through without coming to the k-th."""
    with Runtime.open(toy_bundle, tmp_path / "store", threads=1) as runtime:
        runtime.add(toy.images(19, 0), "cat")
        watch = Watch(runtime)
        for k in range(1, 100):
            faults.fail(call, k)
            done = attempt(runtime)
            if isinstance(done, RequestResult):
                break
            assert "No space left on device; nothing was changed" in done
            assert (runtime.serving, runtime.predict(watch.images).tobytes()) == watch.before
            assert runtime.store.requests()[-1].status == "failed"
            assert len(list(runtime.serving.path.parent.iterdir())) == 1
        # Whatever fails from here on comes after the swap: the checkpoint that has to go, which the next lock
        # sees to, and the cost lines, which the store has too.
        assert isinstance(done, RequestResult)
        assert k > 1
        assert done.status == "done"
        assert len(runtime.log()) >= len(done.records)
        assert runtime.serving.id == done.generation
        assert sha256(runtime.serving.path) == runtime.serving.sha256


def test_cost_lines_that_cannot_be_written_are_told_and_the_new_weights_serve(runtime: Runtime) -> None:
    runtime.add(toy.images(19, 0), "cat")
    (runtime.store.folder / "cost.jsonl").mkdir()
    result = runtime.forget("cat", seed=5)
    assert result.status == "done"
    assert result.reason is not None
    assert "cannot append to" in result.reason
    assert runtime.serving.id == result.generation
    assert len(runtime.log()) == len(result.records)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_store_that_cannot_be_created_can_be_created_later(
    toy_bundle: Path, tmp_path: Path, faults: Faults, call: str
) -> None:
    faults.fail(call, 1)
    with pytest.raises(ClueError, match="No space left"):
        Runtime.open(toy_bundle, tmp_path / "store", threads=1)
    with Runtime.open(toy_bundle, tmp_path / "store", threads=1) as runtime:
        assert np.all(runtime.predict(toy.images(4, 0)).argmax(1) == 0)


def test_a_swap_that_sqlite_refuses(watch: Watch) -> None:
    watch.runtime.store.database.execute(
        "CREATE TRIGGER full BEFORE INSERT ON generations BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
    )
    with pytest.raises(ClueError, match="disk is full; nothing was changed"):
        watch.runtime.forget("cat", seed=5)
    watch.unchanged("failed")
    watch.runtime.store.database.execute("DROP TRIGGER full")
    assert watch.runtime.forget("cat", seed=5).status == "done"


def test_weights_that_were_changed_on_the_disk_are_not_served(runtime: Runtime) -> None:
    content = bytearray(runtime.serving.path.read_bytes())
    content[-1] ^= 1
    runtime.serving.path.write_bytes(content)
    with pytest.raises(ClueError, match="were changed: their SHA-256 is not the recorded one"):
        runtime.predict(toy.images(1, 0))


# --- bundles that only show their faults when they are used


def rewritten(root: Path, file: str, arrays: dict[str, Any]) -> Path:
    """Replace a safetensors file of the bundle and its hashes in the manifest."""
    path = root / file
    old = sha256(path)
    save_file(arrays, path)

    def change(manifest: dict[str, Any]) -> None:
        text = json.dumps(manifest).replace(old, sha256(path))
        manifest.clear()
        manifest.update(json.loads(text))
        for entry in [*manifest["files"], manifest["weights"]]:
            if entry["file"] == file:
                entry["bytes"] = path.stat().st_size

    return toy.edit(root, change)


WEIGHTS: dict[str, Any] = {"params": toy.params(), "frozen": toy.FROZEN}


@pytest.mark.parametrize(("file", "arrays", "message"), [
    ("weights.safetensors", {"params": toy.params()}, r"frozen is missing, the bundle needs \[1\]"),
    ("weights.safetensors", WEIGHTS | {"params": toy.params()[:-1]}, r"params is \[50\], .* needs \[51\]"),
    ("weights.safetensors", WEIGHTS | {"params": toy.params().astype(np.float64)}, "params is float64"),
    ("extra/importance.safetensors", {"other": toy.IMPORTANCE}, r"no array importance of shape \[51\]"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_named(
    own_bundle: Path, tmp_path: Path, file: str, arrays: dict[str, Any], message: str
) -> None:
    rewritten(own_bundle, file, arrays)
    with Runtime.open(own_bundle, tmp_path / "store", threads=1) as runtime:
        runtime.add(toy.images(5, 0), "cat")
        with pytest.raises(ClueError, match=message):
            runtime.forget("cat")
        assert [request.status for request in runtime.store.requests()] == ["failed"]


def test_a_bundle_for_another_runtime(own_bundle: Path, tmp_path: Path) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        for program in manifest["programs"].values():
            program["files"] = {"coreml": program["files"]["onnx"]}

    with pytest.raises(ClueError, match="has programs for coreml, and this runtime runs litert, onnx"):
        Runtime.open(toy.edit(own_bundle, rename), tmp_path / "store", threads=1)
    assert not (tmp_path / "store").exists()


def test_dry_run_counts_what_the_request_does(watch: Watch) -> None:
    told = watch.runtime.dry_run("cat", scalars=NO_STOP)
    result = watch.runtime.forget("cat", seed=5, scalars=NO_STOP)
    runs: Any = told["runs"]
    assert sum(runs[name] for name in ("note", "step", "shrink")) == result.evidence["steps"]
    assert runs["predict"] == 2 * 5
    assert told["flops"] == 100 * sum(runs.values())
    assert told["samples"] == 19
    # params and velocity twice; frozen, importance, kick and origin once; a row of 3 for each sample
    assert told["values_bytes"] == 4 * (2 * 2 * 51 + 1 + 3 * 51 + 19 * 3)
    assert told["storage_bytes"] == (watch.runtime.bundle.root / "weights.safetensors").stat().st_size
    assert watch.runtime.dry_run("dog")["operations"] == 0


def test_dry_run_counts_stops(watch: Watch) -> None:
    # 3 epochs of 3 batches of 8; 7 samples are 2 batches of predict
    runs: Any = watch.runtime.dry_run("cat", scalars={"check_every": 1})["runs"]
    assert runs["predict"] == 2 * 5 + 3 * 3 * 2
