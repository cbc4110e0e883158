from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from faults import Faults
from safetensors import safe_open

from pi_runtime import Bundle, ClueError, checkpoint, weights
from pi_runtime.checkpoint import Identity, State
from pi_runtime.cost import Meter
from pi_runtime.engine import Engine
from pi_runtime.onnx_engine import OnnxEngine
from pi_runtime.request import Begun, Job, Paused, Runner

N = 19
HERE = Identity(3, 5, "a" * 64, "b" * 64, "onnx", "1.0", 2)
SCALARS = toy.SCALARS | {"check_every": 0, "epochs": 2}


def with_bits(bundle: Bundle) -> Bundle:
    """The toy bundle with one carry of bits more than the packed bytes have."""
    values = dict(bundle.values)
    values["origin"] = dataclasses.replace(values["origin"], storage="bits")
    return dataclasses.replace(bundle, values=values)


@pytest.fixture
def bundle(opened_bundle: Bundle) -> Bundle:
    return with_bits(opened_bundle)


@pytest.fixture
def state(bundle: Bundle) -> State:
    draw = np.random.default_rng(0)
    values = {
        name: draw.standard_normal((N, *value.shape) if value.role == "cache" else value.shape).astype(
            np.float32
        )
        for name, value in bundle.values.items()
    }
    values["origin"] = (values["origin"] > 0).astype(np.float32)
    return State(17, values, {"sums": [["learn", "loss", 1, 0.1 + 0.2, 3]]}, {"request": {"wall_s": 1 / 3}})


def test_everything_comes_back_to_the_bit(bundle: Bundle, state: State, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "000003.safetensors"
    checkpoint.write(path, state, HERE, bundle)
    assert path.stat().st_mode & 0o777 == 0o600
    found = checkpoint.read(path, bundle, N)
    assert found is not None
    again, identity = found
    assert identity == HERE
    assert (again.cursor, again.evidence, again.cost) == (17, state.evidence, state.cost)
    assert again.values.keys() == state.values.keys()
    for name, array in state.values.items():
        assert (again.values[name].shape, again.values[name].dtype) == (array.shape, np.float32)
        assert again.values[name].tobytes() == array.tobytes()


def test_the_file_is_what_the_contract_says(bundle: Bundle, state: State, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, state, HERE, bundle)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        packed = file.get_tensor("origin")
        assert file.get_tensor("teach").shape == (N, 3)
    assert set(metadata) == {
        "format", "request_id", "cursor", "seed", "manifest_sha256", "base_sha256", "engine", "version",
        "threads", "evidence", "cost", "sha256",
    }  # fmt: skip
    assert (metadata["format"], metadata["cursor"], metadata["threads"]) == ("1", "17", "2")
    assert packed.dtype == np.uint8
    assert packed.shape == (-(-toy.SIZE // 8),)
    # The first value of a byte is its least significant bit.
    assert [packed[0] >> i & 1 for i in range(8)] == state.values["origin"][:8].tolist()


def test_a_value_of_bits_must_be_bits(bundle: Bundle, state: State, tmp_path: Path) -> None:
    state.values["origin"][3] = 0.5
    with pytest.raises(ClueError, match="value origin is stored as bits but has others than 0 and 1"):
        checkpoint.write(tmp_path / "c.safetensors", state, HERE, bundle)
    assert list(tmp_path.iterdir()) == []


def test_any_changed_byte_and_any_cut_is_noticed(bundle: Bundle, state: State, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, state, HERE, bundle)
    content = path.read_bytes()
    draw = np.random.default_rng(1)
    places = [*range(24), *draw.integers(0, len(content), 150).tolist(), len(content) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        assert checkpoint.read(path, bundle, N) is None, place
        assert not path.exists()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert checkpoint.read(path, bundle, N) is None
    path.write_bytes(content + b"\0")
    assert checkpoint.read(path, bundle, N) is None
    path.write_bytes(content)
    assert checkpoint.read(path, bundle, N) is not None
    assert checkpoint.read(tmp_path / "none.safetensors", bundle, N) is None


def test_a_checkpoint_of_other_values_is_not_taken(bundle: Bundle, state: State, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, state, HERE, bundle)
    content = path.read_bytes()
    fewer = {name: value for name, value in bundle.values.items() if name != "kick"}
    assert checkpoint.read(path, dataclasses.replace(bundle, values=fewer), N) is None
    path.write_bytes(content)
    assert checkpoint.read(path, bundle, N + 1) is None  # another number of samples


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_an_older_checkpoint_stays_whole_when_the_disk_fails(
    bundle: Bundle, state: State, tmp_path: Path, faults: Faults, call: str
) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, state, HERE, bundle)
    newer = dataclasses.replace(state, cursor=18)
    for k in range(1, 100):
        faults.fail(call, k)
        with contextlib.suppress(ClueError):
            checkpoint.write(path, newer, HERE, bundle)
        found = checkpoint.read(path, bundle, N)
        assert found is not None
        assert found[0].cursor in (17, 18)
        assert [one.name for one in tmp_path.iterdir()] == ["c.safetensors"]
        if not faults.happened:
            break
    assert 1 < k < 99
    assert found[0].cursor == 18


@pytest.mark.parametrize(("change", "sentence"), [
    ({"version": "1.1"}, "begun with onnx 1.0 and this is onnx 1.1: go on with the engine that began it, or"),
    ({"engine": "litert"}, "begun with onnx 1.0 and this is litert 1.0"),
    ({"threads": 4}, "begun with 2 threads and this has 4: give --threads 2, or start it anew"),
    ({"manifest_sha256": "c" * 64}, "begun with the bundle aaaaaaaaaaaa and now there are cccccccccccc"),
    ({"base_sha256": "c" * 64}, "begun with the base weights bbbbbbbbbbbb and now there are cccccccccccc"),
    ({"seed": 6}, "is of request 3 with seed 5, not of seed 6"),
])  # fmt: skip
def test_what_would_not_go_on_bit_identically_is_refused(change: dict[str, Any], sentence: str) -> None:
    checkpoint.check(HERE, HERE)
    with pytest.raises(ClueError, match=sentence):
        checkpoint.check(HERE, dataclasses.replace(HERE, **change))


# --- a runner that goes on


@pytest.fixture(scope="module")
def engine() -> Engine:
    return OnnxEngine(1)


Make = Callable[..., tuple[Runner, Meter]]


@pytest.fixture
def make(opened_bundle: Bundle, engine: Engine) -> Make:
    served = weights.WeightsFile(opened_bundle.root / "weights.safetensors")
    images, labels = toy.images(N, 0), np.zeros(N, np.int64)

    def build(begun: Begun | None = None, **job: Any) -> tuple[Runner, Meter]:
        meter = Meter(engine, opened_bundle.batch)
        scalars = job.pop("scalars", SCALARS)
        return Runner(
            opened_bundle, engine, served, Job(images, labels, 5, scalars, **job), meter, begun
        ), meter

    return build


def outcome(runner: Runner) -> tuple[dict[str, bytes], dict[str, Any]]:
    return {name: array.tobytes() for name, array in runner.values.all().items()}, runner.so_far()


def paused_at(make: Make, cursor: int) -> tuple[Runner, Meter]:
    def pause() -> None:
        if runner.cursor == cursor:
            raise Paused("stopped")

    runner, meter = make(check=pause)
    with pytest.raises(Paused):
        runner.run()
    return runner, meter


def test_going_on_from_any_operation_gives_the_same_bits(make: Make) -> None:
    runner, meter = make()
    runner.run()
    expected, steps = outcome(runner), meter.steps
    for cursor in range(1, runner.cursor):
        first, meter = paused_at(make, cursor)
        begun = Begun(
            first.cursor,
            {name: array.copy() for name, array in first.values.all().items()},
            json.loads(json.dumps(first.so_far())),
        )
        sums = json.loads(json.dumps(meter.state()))
        second, meter = make(begun)
        meter.restore(sums)
        second.run()
        assert outcome(second) == expected, cursor
        assert meter.steps == steps


def test_a_checkpoint_is_asked_for_after_each_epoch_and_each_n_runs(make: Make) -> None:
    saved: list[int] = []
    runner, meter = make(save=lambda: saved.append(runner.cursor))
    runner.run()
    total = runner.cursor
    # 5 notes; a reset; 3 batches of two inner ones with `inner` steps, a shrink and a stop
    epoch = 5 + 1 + 3 * (2 * int(SCALARS["inner"]) + 2)
    assert saved == [epoch, 2 * epoch]
    assert total == 2 * epoch + 5
    more: list[tuple[int, int]] = []
    runner, meter = make(save=lambda: more.append((runner.cursor, meter.steps)), save_every=4)
    runner.run()
    assert len(more) == len({cursor for cursor, _ in more})
    assert {step for _, step in more if step % 4 == 0} == set(range(4, meter.steps + 1, 4))


def test_a_taken_stop_also_ends_an_epoch(make: Make) -> None:
    saved: list[int] = []
    runner, _ = make(save=lambda: saved.append(runner.cursor), scalars=toy.SCALARS)
    runner.run()
    assert runner.evidence.stopped_early
    assert saved
    # The last one stands behind the loop: what follows is the plan's last phase of 5 runs.
    assert runner.cursor - saved[-1] == 5


def test_enough_ends_the_epochs(make: Make) -> None:
    asked: list[int] = []

    def enough() -> bool:
        asked.append(runner.cursor)
        return True

    runner, _ = make(enough=enough, scalars=SCALARS | {"epochs": 4})
    runner.run()
    assert len(asked) == 1
    assert runner.evidence.epochs_run == 1
    assert runner.evidence.stopped_early
