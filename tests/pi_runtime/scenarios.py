"""Carries out contract/scenarios/*.json with this runtime; contract/scenarios.md says what the steps mean."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from pi_runtime import ClueError, Runtime
from pi_runtime.options import Options
from pi_runtime.receipts import canonical
from pi_runtime.store import Store

FOLDER = Path(__file__).parents[2] / "contract" / "scenarios"
# The step of sealing, as the store tells them, at which the process dies.
_SEAL_POINTS = {"seal_began": 1, "rows_erased": 2, "files_erased": 3}


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Player:
    """One scenario's stores and the one that is open."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, "first"
        self.images = load_file(FOLDER / "images.safetensors")
        self.runtime: Runtime | None = None
        self.remembered: dict[str, str] = {}
        self.bundle = ""

    def play(self, steps: list[dict[str, Any]]) -> None:
        for number, step in enumerate(steps, 1):
            try:
                self.step(step)
            except Exception as error:
                error.add_note(f"in step {number}: {json.dumps(step)}")
                raise

    def step(self, step: dict[str, Any]) -> None:
        if "then" in step:
            for name, wanted in step["then"].items():
                getattr(self, f"then_{name}")(wanted)
            self.chain_holds()
        elif "remember" in step:
            self.remembered[step["remember"]] = self.open.serving.sha256
        elif "same_weights" in step:
            assert self.open.serving.sha256 == self.remembered[step["same_weights"]]
        elif "error" in step:
            with pytest.raises(ClueError) as caught:
                self.do(step)
            for word in step["error"]:
                assert word in str(caught.value), str(caught.value)
        else:
            self.do(step)

    def do(self, step: dict[str, Any]) -> None:
        given = {key: value for key, value in step.items() if key not in ("do", "error")}
        getattr(self, f"do_{step['do']}")(**given)

    @property
    def open(self) -> Runtime:
        assert self.runtime is not None, "the scenario opens a store first"
        return self.runtime

    def close(self) -> None:
        if self.runtime is not None:
            self.runtime.close()
            self.runtime = None

    @property
    def store(self) -> Path:
        return self.folder / self.name / "store"

    # --- what is done

    def do_store(self, name: str) -> None:
        self.close()
        self.name = name

    def do_open(self, bundle: str, policy: str = "refuse") -> None:
        self.close()
        root = self.folder / self.name / bundle
        if not root.exists():  # a copy: sealing erases its weights
            shutil.copytree(FOLDER / "bundles" / bundle, root)
        self.bundle = bundle
        self.runtime = Runtime.open(root, self.store, threads=1, policy=policy)

    def chosen(self, images: list[int], of: str) -> Any:
        return self.images[of][images[0] : images[1]]

    def do_add(self, label: str, images: list[int], new: int = 0, of: str | None = None) -> None:
        assert (
            len(self.open.add(self.chosen(images, of or "cat" if label == "bird" else of or label), label))
            == new
        )

    def do_submit(self, request: int | None, options: dict[str, Any] | None = None, **given: Any) -> None:
        assert self.open.submit(**given, options=Options.of(options or {})) == request

    def do_run(
        self, request: int, status: str | None, *, crash: str | None = None, after: int = 0, **ends: int
    ) -> None:
        if crash is not None:
            self.crash(lambda runtime: self.run_into(runtime, request, crash, after))
            return
        done: list[object] = []

        def reached(name: str) -> bool:
            return len(done) >= ends.get(name, len(done) + 1)

        result = self.open.run(
            request,
            progress=done.append,
            cancel=lambda: reached("cancel_after"),
            stop=lambda: reached("stop_after"),
        )
        assert result.status == status

    def run_into(self, runtime: Runtime, request: int, point: str, after: int) -> None:
        """Run a request in this process, which dies at `point`."""
        progress = None
        if point == "operation":
            done = itertools.count(1)
            progress = lambda told: die() if next(done) >= after else None  # noqa: E731
        elif point == "weights_written":
            Store.finish = die  # type: ignore[method-assign, assignment]
        elif point == "swapped":
            Store._write_receipts = die  # type: ignore[method-assign]
        runtime.run(request, progress=progress)

    def crash(self, act: Callable[[Runtime], object]) -> None:
        """Let a process of its own open the store and die on its way."""
        self.close()
        child = os.fork()
        if child == 0:
            try:
                self.do_open(self.bundle)
                act(self.open)
            finally:
                os._exit(1)  # it should not have come here
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the process was to be killed, and ended by itself"
        assert os.WTERMSIG(status) == signal.SIGKILL

    def do_run_next(self, request: int | None, status: str | None = None) -> None:
        result = self.open.run_next()
        assert (None if result is None else result.id, None if result is None else result.status) == (
            request,
            status,
        )

    def do_cancel(self, request: int) -> None:
        assert self.open.cancel(request)

    def do_retry(self, request: int, seed: int, new: int | None) -> None:
        assert self.open.retry(request, seed) == new

    def do_rollback(self, generation: int, lost: list[int]) -> None:
        assert self.open.store.rollback(generation) == lost

    def do_seal(self, request: int, crash: str | None = None) -> None:
        if crash is None:
            self.open.store.seal(request)
            return
        told = itertools.count(1)
        dies_at = _SEAL_POINTS[crash]
        tell = lambda words: die() if next(told) == dies_at else None  # noqa: E731
        self.crash(lambda runtime: runtime.store.seal(request, tell))

    # --- what holds then

    def then_requests(self, wanted: list[dict[str, Any]]) -> None:
        found = [request.as_dict() for request in self.open.store.requests()]
        assert len(found) == len(wanted)
        for row, expected in zip(found, wanted, strict=True):
            for name, value in expected.items():
                if name in ("rolled_back", "sealed"):
                    assert (row[name] is not None) == value, (name, row)
                elif name == "reason":
                    assert value in (row["reason"] or ""), row
                elif name == "evidence":
                    assert value.items() <= row["evidence"].items(), row
                else:
                    assert row[name] == value, (name, row)

    def then_generations(self, wanted: list[dict[str, Any]]) -> None:
        found = self.open.store.generations()
        assert len(found) == len(wanted)
        for row, expected in zip(found, wanted, strict=True):
            for name, value in expected.items():
                seen = row.erased is not None if name == "erased" else getattr(row, name)
                assert seen == value, (name, row)

    def then_generation_files(self, wanted: list[int]) -> None:
        names = sorted(path.name for path in (self.store / "generations").iterdir())
        assert names == [f"{one:06d}.safetensors" for one in wanted]

    def then_checkpoints(self, wanted: list[int]) -> None:
        folder = self.store / "checkpoints"
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        assert names == [f"{one:06d}.safetensors" for one in wanted]

    def then_samples(self, wanted: dict[str, int]) -> None:
        classes = self.open.bundle.classes
        assert {classes[k]: n for k, n in self.open.store.counts().items() if n} == wanted

    def then_keys(self, wanted: int) -> None:
        assert len(list((self.store / "keys").glob("*.key"))) == wanted

    def then_forgotten(self, wanted: list[str]) -> None:
        assert self.open.forgotten == wanted

    def then_records(self, wanted: dict[str, list[str]]) -> None:
        for request, phases in wanted.items():
            found = [r["phase"] for r in self.open.log() if r["request_id"] == int(request)]
            assert found == phases

    def receipts(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.open.store.receipts()]

    def then_receipts(self, wanted: list[dict[str, Any]]) -> None:
        found = self.receipts()
        assert [one["kind"] for one in found] == [one["kind"] for one in wanted]
        for receipt, expected in zip(found, wanted, strict=True):
            if "request_id" in expected:
                assert receipt["request"]["id"] == expected["request_id"], receipt

    def chain_holds(self) -> None:
        """Each receipt is canonical and names the one before."""
        previous = "0" * 64
        for number, text in enumerate(self.open.store.receipts(), 1):
            receipt = json.loads(text)
            assert (receipt["number"], receipt["previous"]) == (number, previous)
            assert canonical.dumps(receipt) == text
            previous = hashlib.sha256(text.encode()).hexdigest()

    def then_answers(self, wanted: dict[str, Any]) -> None:
        images = self.chosen(wanted["images"], wanted["of"])
        found = self.open.classify(images, wanted["choice"])
        if "never" in wanted:
            assert wanted["never"] not in [each.name for each in found]
        if "classes" in wanted:
            assert [each.name for each in found] == wanted["classes"]
            assert [each.forgotten for each in found] == wanted["forgotten"]

    def then_bytes_of(self, wanted: list[str]) -> None:
        """Of the sealed class's images nothing is found in any file of the store."""
        assert wanted == []
        content = b"".join(path.read_bytes() for path in self.store.rglob("*") if path.is_file())
        for image in self.images["cat"]:
            assert image.tobytes() not in content

    def then_bundle_weights(self, wanted: bool) -> None:
        path = self.folder / self.name / self.bundle / "weights.safetensors"
        assert path.exists() == wanted


def load(path: Path) -> list[dict[str, Any]]:
    """The steps of a scenario. Its words are checked: a misspelt one would not be looked at."""
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() == {"about", "steps"}
    for step in content["steps"]:
        for word in [
            *([f"do_{step['do']}"] if "do" in step else []),
            *map("then_{}".format, step.get("then", ())),
        ]:
            assert hasattr(Player, word), word
    return list(content["steps"])


def documented(text: str) -> set[str]:
    """The words of scenarios.md that stand in its tables' first column."""
    return set(re.findall(r"^\| `([a-z_]+)`", text, re.MULTILINE))
