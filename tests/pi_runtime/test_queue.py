from __future__ import annotations

import configparser
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

import pi_runtime
from pi_runtime import Bundle, ClueError, Runtime
from pi_runtime.cli import main
from pi_runtime.forget import RequestResult
from pi_runtime.options import Options
from pi_runtime.queue import Told, serve

NO_STOP = {"check_every": 0}
UNIT = Path(pi_runtime.__file__).parent / "clue-pi.service"


@pytest.fixture
def filled(runtime: Runtime) -> Runtime:
    for label, name in ((0, "cat"), (1, "dog")):
        runtime.add(toy.images(19, label), name)
    return runtime


def after(questions: int) -> Callable[[], bool]:
    """Says yes from that many questions on."""
    asked: list[int] = []
    return lambda: asked.append(1) or len(asked) > questions  # type: ignore[func-returns-value]


def never() -> bool:
    return False


def served(runtime: Runtime, **options: Any) -> tuple[list[RequestResult], list[tuple[int, str]]]:
    results: list[RequestResult] = []
    problems: list[tuple[int, str]] = []
    told = Told(None, results.append, lambda number, sentence: problems.append((number, sentence)))
    serve(runtime, told, options.pop("stop", never), **options)
    return results, problems


def test_the_oldest_request_runs_first(filled: Runtime) -> None:
    first = filled.submit("dog", seed=5)
    second = filled.submit("cat", seed=5)
    assert filled.store.next_queued() == first
    results, problems = served(filled)
    assert [(result.id, result.status) for result in results] == [(first, "done"), (second, "done")]
    assert problems == []
    assert filled.forgotten == ["dog", "cat"]


def test_a_request_of_samples(filled: Runtime) -> None:
    cats = filled.store.sample_ids(0)
    number = filled.submit(samples=cats[3:9], seed=5, options=Options(accuracy_at_most=100))
    request = filled.store.request(number)
    assert (request.kind, request.label, request.samples) == ("samples", None, 6)
    with pytest.raises(ClueError, match=f"sample {cats[3]} is part of request {number}, which is queued"):
        filled.submit("cat")
    assert filled.run(number).status == "done"
    assert filled.forgotten == []
    with pytest.raises(ClueError, match="names a class or sample ids: give one of them"):
        filled.submit("cat", samples=cats)
    with pytest.raises(ClueError, match="names a class or sample ids"):
        filled.submit()
    with pytest.raises(ClueError, match="no sample 999 is stored"):
        filled.submit(samples=[999])


def test_a_stopped_request_pauses_and_the_queue_takes_it_up_again(filled: Runtime, tmp_path: Path) -> None:
    filled.submit("cat", seed=5, scalars=NO_STOP)
    results, _ = served(filled, stop=after(25))
    assert [(result.status, result.reason) for result in results] == [("paused", "stopped")]
    assert filled.store.checkpoint_path(1).exists()
    results, _ = served(filled)
    assert [result.status for result in results] == ["done"]
    assert not filled.store.checkpoint_path(1).exists()
    with Runtime.for_bundle(filled.bundle, tmp_path / "other", threads=1) as other:
        other.add(toy.images(19, 0), "cat")
        whole = other.forget("cat", seed=5, scalars=NO_STOP)
        assert other.serving.sha256 == filled.serving.sha256
        assert dict(whole.evidence) == dict(results[0].evidence)
        one, two = filled.store.request(1), other.store.request(1)
        for name in ("reason", "evidence", "scalars", "options", "status", "base_generation"):
            assert getattr(one, name) == getattr(two, name)


def test_stopping_at_any_step_gives_the_same_bits(filled: Runtime, tmp_path: Path) -> None:
    hashes = set()
    for number, steps in enumerate((8, 16, 30)):
        with Runtime.for_bundle(filled.bundle, tmp_path / str(number), threads=1) as runtime:
            runtime.add(toy.images(19, 0), "cat")
            result = runtime.forget("cat", seed=5, scalars=NO_STOP, stop=after(steps))
            while result.status == "paused":
                result = runtime.resume(result.id, stop=after(steps))
            assert result.status == "done"
            hashes.add(runtime.serving.sha256)
    assert len(hashes) == 1


def test_what_breaks_is_told_once_and_the_rest_goes_on(filled: Runtime) -> None:
    broken = filled.submit("cat", seed=5)
    fine = filled.submit("dog", seed=5)
    # Somebody damaged the bundle's weights that serve: nothing can run, and that is said for each.
    content = filled.serving.path.read_bytes()
    filled.serving.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    results, problems = served(filled)
    assert results == []
    assert [number for number, _ in problems] == [broken, fine]
    assert all("were changed: their SHA-256 is not the recorded one" in text for _, text in problems)


def test_another_base_is_refused_and_the_request_stays_paused(filled: Runtime) -> None:
    paused = filled.forget("cat", seed=5, scalars=NO_STOP, stop=after(30))
    assert paused.status == "paused"
    assert filled.forget("dog", seed=5).status == "done"
    with pytest.raises(ClueError, match=r"request 1 was begun with the base weights .* and now there are"):
        filled.resume(paused.id)
    assert filled.status(paused.id) == "paused"
    results, problems = served(filled)
    assert (results, [number for number, _ in problems]) == ([], [paused.id])
    assert filled.cancel(paused.id)
    again = filled.retry(paused.id)
    results, problems = served(filled)
    assert [(result.id, result.status) for result in results] == [(again, "done")]


def test_retry_makes_a_request_with_the_same_settings_and_a_new_seed(filled: Runtime) -> None:
    failed = filled.forget("cat", seed=5, scalars={"lr": 1e-6}, options=Options(max_seconds=60))
    assert failed.status == "failed"
    again = filled.retry(failed.id)
    old, new = filled.store.request(failed.id), filled.store.request(again)
    assert (new.retry_of, new.status) == (old.id, "queued")
    assert (new.label, new.scalars, new.options, new.samples) == (0, old.scalars, old.options, old.samples)
    assert new.seed != old.seed
    assert filled.store.samples_of(again) == filled.store.samples_of(failed.id)
    with pytest.raises(ClueError, match=f"request {again} is queued: resume it, or cancel it before"):
        filled.retry(again)
    assert filled.cancel(again)
    assert filled.store.request(filled.retry(again, seed=7)).seed == 7
    with pytest.raises(ClueError, match=f"request {failed.id} is failed: only a paused one can be resumed"):
        filled.resume(failed.id)
    with pytest.raises(
        ClueError, match=f"request {failed.id} is failed: only a queued or paused one can run"
    ):
        filled.run(failed.id)
    with pytest.raises(ClueError, match="no request 99 is stored"):
        filled.run(99)


def test_cancel_from_another_process_ends_a_running_request(filled: Runtime) -> None:
    with Runtime.for_bundle(filled.bundle, filled.store.folder, threads=1) as other:
        asked: list[bool] = []

        def cancel_it(progress: Any) -> None:
            if not asked:
                asked.append(other.cancel(1))

        # The look into the database is due once a second; here the run is long enough to see it, and its
        # steps are too small to diverge before.
        still = {**NO_STOP, "epochs": 1e6, "lr": 1e-9, "lr_last": 1e-9}
        result = filled.forget("cat", seed=5, scalars=still, progress=cancel_it)
    assert asked == [False]
    assert (result.status, result.reason) == ("cancelled", None)
    assert filled.store.request(1).reason is None
    with pytest.raises(ClueError, match="request 1 is cancelled"):
        filled.cancel(1)


# --- the command line and the service


class Shell:
    """Runs `clue-pi` in processes of its own on one store."""

    def __init__(self, bundle: Path, store: Path) -> None:
        self.bundle, self.store = bundle, store

    def start(self, command: str, *arguments: object) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "pi_runtime", command, str(self.bundle), *map(str, arguments)]
        words += ["--store", str(self.store), "--threads", "1"]
        environment = {**os.environ, "PYTHONPATH": str(UNIT.parents[1])}
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )


@pytest.fixture
def shell(toy_bundle: Path, tmp_path: Path) -> Shell:
    store = tmp_path / "store"
    with Runtime.open(toy_bundle, store, threads=1) as runtime:
        runtime.add(toy.images(19, 0), "cat")
        runtime.add(toy.images(19, 1), "dog")
    return Shell(toy_bundle, store)


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def cli(shell: Shell, capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> tuple[int, Any]:
    """Run a command in this process; its exit code and its JSON."""
    words = [command, str(shell.bundle), *arguments, "--store", str(shell.store), "--threads", "1", "--json"]
    code = main(words)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else err


LONG = ("--set", "check_every=0", "--set", "epochs=1e6", "--set", "lr=1e-6")


def test_sigterm_pauses_the_service_and_a_new_one_goes_on(shell: Shell, toy_bundle: Path) -> None:
    bundle = Bundle.open(toy_bundle)
    with Runtime.for_bundle(bundle, shell.store, threads=1) as runtime:
        process = shell.start("run", "--watch", "--poll", "0.1")
        number = runtime.submit("cat", seed=5, scalars={**NO_STOP, "epochs": 1e6, "lr": 1e-6})
        until(lambda: runtime.store.checkpoint_path(number).exists())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        assert f"request {number}: paused: stopped" in out
        request = runtime.store.request(number)
        assert (request.status, request.reason) == ("paused", "stopped")
        # Killed in the midst of it: the next service finds it interrupted and goes on.
        before = runtime.store.checkpoint_path(number).stat().st_mtime_ns
        process = shell.start("run", "--watch", "--poll", "0.1", "--quiet")
        until(lambda: runtime.store.checkpoint_path(number).stat().st_mtime_ns > before)
        process.kill()
        process.communicate(timeout=90)
        assert runtime.store.request(number).status == "running"
        assert runtime.status(number) == "paused"
        assert runtime.store.request(number).reason == "interrupted"
        assert runtime.cancel(number)


def test_an_idle_service_ends_at_once_on_sigterm(shell: Shell) -> None:
    process = shell.start("run", "--watch", "--poll", "3000")
    time.sleep(3.0)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)  # the latter when it was still starting
    assert time.monotonic() - started < 60


def test_queue_run_cancel_and_retry_by_the_command_line(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, *arguments: str) -> tuple[int, Any]:
        return cli(shell, capsys, command, *arguments)

    seeded = ("--seed", "5", "--set", "check_every=0")
    assert run("forget", "--label", "cat", *seeded, "--queue") == (0, {"id": 1, "status": "queued"})
    assert run("forget", "--samples", "20-23,25", *seeded, "--queue") == (0, {"id": 2, "status": "queued"})
    assert run("cancel", "2") == (0, {"id": 2, "status": "cancelled"})
    code, result = run("run", "--quiet")
    assert (code, result["id"], result["status"]) == (0, 1, "done")
    assert run("retry", "1", "--queue", "--seed", "6") == (0, {"id": 3, "status": "queued"})
    assert run("cancel", "3")[0] == 0
    code, result = run("forget", "--label", "dog", *seeded, "--quiet", "--max-seconds", "0.000001")
    assert (code, result["status"]) == (3, "paused")
    code, result = run("resume", "4", "--quiet")
    assert (code, result["status"]) == (3, "paused")
    code, told = run("resume", "1", "--quiet")
    assert (code, "request 1 is done: only a paused one can be resumed" in told) == (2, True)
    for words, sentence in (
        (("forget", "--samples", "3-", "--queue"), "--samples '3-': write ids and ranges, such as 3,5-9"),
        (("forget", "--label", "cat", "--queue", "--dry-run"), "exclude each other"),
        (("forget", "--label", "cat", "--max-joules", "5"), "this device does not measure energy"),
        (("run", "--poll", "0"), "--poll 0: it must be from 0.05 to 3600 seconds"),
        (("run", "--cpus", "x"), "--cpus 'x'"),
    ):
        code, told = run(*words)
        assert (code, sentence in told) == (2, True), told


def test_the_unit_file_is_hardened(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    unit = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    service = unit["Service"]
    for key, value in {
        "PrivateNetwork": "yes", "RestrictAddressFamilies": "none", "ProtectSystem": "strict",
        "ReadOnlyPaths": "/opt/clue-pi", "StateDirectory": "clue-pi", "StateDirectoryMode": "0700",
        "UMask": "0077", "NoNewPrivileges": "yes", "KillSignal": "SIGTERM", "ProtectHome": "yes",
    }.items():  # fmt: skip
        assert service[key] == value
    assert " run " in service["ExecStart"]
    assert "--watch" in service["ExecStart"]
    assert "--store ${STATE_DIRECTORY}" in service["ExecStart"]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed; the keys were checked")
    # All but the path of the program, which is only there on a device.
    copy = tmp_path / "clue-pi.service"
    copy.write_text(text.replace("/opt/clue-pi/venv/bin/clue-pi run", f"{sys.executable} run"))
    checked = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_results_are_json(filled: Runtime) -> None:
    result = filled.forget("cat", seed=5)
    assert json.loads(json.dumps(dataclasses.asdict(result)))["status"] == "done"
    assert np.isfinite(result.evidence["forget_accuracy_after"])
