"""The exported step works in the runtime's own arrays of each value, and Python copies none of them."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity_case import quick_export

from clue_mobile import models
from clue_mobile.data import Dataset
from clue_mobile.parity import Replay
from pi_runtime.bundle import Bundle
from pi_runtime.onnx_engine import OnnxEngine, OnnxSession

LABEL = 3
BATCH = 8  # small: the arrays of a batch are then far below those of the state
STEPS = 40
STATE = ("params", "buffers", "momentum")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits_weights: Path) -> Bundle:
    spec = models.resolve_spec("digits_cnn")
    out = tmp_path_factory.mktemp("no_copies") / "digits.clue"
    given: dict[str, Any] = {"saliency_batch": 64, "tau": 3e-4, "epochs": 8, "augment": "crop_flip"}
    return Bundle.open(quick_export(models.load(spec, digits_weights), spec, out, batch=BATCH, **given))


@pytest.fixture
def replay(bundle: Bundle, digits_data: Dataset) -> Replay:
    images = digits_data.train.of_class(LABEL).images
    return Replay(bundle, OnnxEngine(1), images, np.full(len(images), LABEL, np.int64), 1)


def watched(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, int]], list[str]]:
    """The addresses of each step's arrays, and the programs that were bound, in a request of STEPS steps."""
    seen: list[dict[str, int]] = []
    bound: list[str] = []
    run, bind = OnnxSession.run, OnnxSession._bind

    def watched_run(session: OnnxSession, inputs: Any, outputs: Any) -> None:
        if session._program.name == "step":
            seen.append({name: a.ctypes.data for name, a in {**inputs, **outputs}.items()})
        run(session, inputs, outputs)

    def watched_bind(session: OnnxSession, inputs: Any, outputs: Any) -> Any:
        bound.append(session._program.name)
        return bind(session, inputs, outputs)

    monkeypatch.setattr(OnnxSession, "run", watched_run)
    monkeypatch.setattr(OnnxSession, "_bind", watched_bind)
    for others, step in itertools.islice(replay.steps(), STEPS):
        replay.carry_out(*others, step)
    assert len(seen) == STEPS
    for name in ("x", "teacher", "lr", "energy", "kl"):
        assert len({call[name] for call in seen}) == 1
    return seen, bound


def test_a_state_is_written_over(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, bound = watched(replay, monkeypatch)
    for name in STATE:
        assert {call[name] for call in seen} == {call[f"{name}_next"] for call in seen}
        assert len({call[name] for call in seen}) == 1
    assert bound.count("step") <= 2  # two sides of the mask, which its own program swaps


def test_where_it_must_not_be_it_goes_to_and_fro_between_two_arrays(
    replay: Replay, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same results."""
    for others, step in itertools.islice(replay.steps(), STEPS):
        replay.carry_out(*others, step)
    load = OnnxEngine.load

    def loaded(engine: OnnxEngine, path: Path, program: Any) -> OnnxSession:
        session = load(engine, path, program)
        session.in_place = {}
        return session

    monkeypatch.setattr(OnnxEngine, "load", loaded)
    other = Replay(bundle, OnnxEngine(1), replay.job.images, replay.job.labels, 1)
    seen, bound = watched(other, monkeypatch)
    for name in STATE:
        assert len({call[name] for call in seen} | {call[f"{name}_next"] for call in seen}) == 2
        assert all(call[name] != call[f"{name}_next"] for call in seen)
        assert all(new[name] == old[f"{name}_next"] for old, new in itertools.pairwise(seen))
    assert bound.count("step") <= 4  # two sides of the state, two of the mask
    for name in STATE:
        np.testing.assert_array_equal(replay.values.current(name), other.values.current(name))


def largest_allocation(replay: Replay) -> int:
    """The most bytes that Python and numpy held during a step beyond what they held before it."""
    largest = 0
    tracemalloc.start()
    try:
        for number, (others, step) in enumerate(itertools.islice(replay.steps(), STEPS)):
            replay.carry_out(*others)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            replay.carry_out(step)
            _, peak = tracemalloc.get_traced_memory()
            if number >= 4:  # before, the arrays of a batch are made and bound
                largest = max(largest, peak - before)
    finally:
        tracemalloc.stop()
    return largest


def state_bytes(bundle: Bundle) -> int:
    return 4 * int(np.prod(bundle.values["params"].shape))


def test_a_step_allocates_nothing_of_the_states_size(replay: Replay) -> None:
    assert largest_allocation(replay) < state_bytes(replay.bundle) / 4


def test_a_copy_in_a_step_would_be_seen(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxSession.run

    def copying(session: OnnxSession, inputs: Any, outputs: Any) -> None:
        run(session, {**inputs, "params": inputs["params"].copy()}, outputs)

    monkeypatch.setattr(OnnxSession, "run", copying)
    assert largest_allocation(replay) >= state_bytes(replay.bundle)
