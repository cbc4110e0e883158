"""Kills, failing writes and power cuts in numbers: python benchmarks/faults/faults.py --out FILE

Each run is a real child process that forgets a class of a bundle. `kills`: SIGKILL at a moment drawn
uniformly from the duration of an undisturbed run. `points`: SIGKILL before, after and within (half of a write
done) a call of each named kind. `faults`: the k-th write, truncation, flush or rename fails, for every k,
once or from then on. `power`: what a power cut after each call would have left, without everything that was
not flushed. After a kill or a cut the request goes on; counted as equal is what ends with the weights' hash,
the rows and the records (without times) of the undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "pi_runtime")]

import crashes  # noqa: E402
import toy  # noqa: E402

from pi_runtime import Bundle  # noqa: E402

MODES = {"before": crashes.KILL_BEFORE, "after": crashes.KILL_AFTER, "within": crashes.KILL_WITHIN}


def kills(bench: crashes.Bench, count: int, seed: int = 1) -> dict[str, Any]:
    """SIGKILL at random moments until it came before the end `count` times."""
    draw = random.Random(seed)
    status: Counter[str] = Counter()
    killed, late, equal = 0, 0, 0
    while killed < count:
        bench.reset()
        ended = bench.server.run("serve", bench.store, kill_after_s=draw.uniform(0, bench.seconds))
        if not ended.killed:
            late += 1
            continue
        killed += 1
        status[bench.serves_old_or_new()] += 1
        again = bench.server.run("serve", bench.store)
        equal += again.answer == ["done"] and bench.end_state() == bench.expected
        told("kills", killed, count)
    return {"kills": killed, "equal": equal, "request_after_the_kill": dict(status), "came_too_late": late}


def points(bench: crashes.Bench) -> dict[str, Any]:
    """SIGKILL at each named write point: before and after its first and its last call, within a write."""
    named = crashes.points(bench.calls, bench.store)
    jobs = [
        (name, how, at)
        for name, calls in named.items()
        for how, at in {("before", calls[0]), ("after", calls[-1]), ("within", calls[len(calls) // 2])}
        if how != "within" or name.startswith("write")
    ]
    equal = 0
    for number, (_, how, at) in enumerate(sorted(jobs)):
        equal += bench.ends_as_undisturbed(MODES[how], at)
        told("points", number + 1, len(jobs))
    return {"points": sorted(named), "kills": len(jobs), "equal": equal}


def faults(bench: crashes.Bench) -> dict[str, Any]:
    """The k-th write, truncation, flush or rename fails: once, or with all later ones."""
    ends: dict[str, Counter[str]] = {"once": Counter(), "from then on": Counter()}
    for at in range(1, bench.writes + 1):
        for how, mode in (("once", crashes.FAIL), ("from then on", crashes.FAIL_FROM)):
            bench.reset()
            ended = bench.server.run("serve", bench.store, mode, at, crashes.WRITES)
            ends[how][f"{bench.serves_old_or_new()}, {'told' if ended.error else 'no error'}"] += 1
        told("faults", at, bench.writes)
    return {"calls": bench.writes, "old_or_new_weights": 2 * bench.writes, "request_afterwards": ends}


def power(bench: crashes.Bench) -> dict[str, Any]:
    """A power cut after each call: opened in two ways of what is left, and the request goes on from one."""
    disk = crashes.Disk(bench.store, bench.before)
    equal, opened = 0, 0
    for place in range(len(bench.calls) + 1):
        for names_kept in (False, True):
            shutil.rmtree(bench.store)
            disk.after_power_cut(bench.store, names_kept)
            bench.serves_old_or_new()
            opened += 1
        ended = bench.server.run("serve", bench.store)
        equal += ended.answer == ["done"] and bench.end_state() == bench.expected
        if place < len(bench.calls):
            disk.apply(bench.calls[place])
        told("power", place, len(bench.calls))
    return {"prefixes": len(bench.calls) + 1, "opened": opened, "resumed_equal": equal}


def told(what: str, done: int, total: int) -> None:
    """Progress, on the error output."""
    if done % 10 == 0 or done == total:
        print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the parts that are asked for; print their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--parts", default="kills,points,faults,power")
    parser.add_argument("--bundle", type=Path, help="a bundle in place of the tests' toy bundle")
    parser.add_argument("--label", default="cat", help="the class that it forgets")
    parser.add_argument(
        "--images", type=Path, help="images of that class, .npy, uint8 [N, H, W, C]; with --bundle"
    )
    parser.add_argument("--out", type=Path, help="write the figures here, in place of printing them")
    options = parser.parse_args()
    if (options.bundle is None) != (options.images is None):
        parser.error(
            "--bundle and --images go together: the request of another bundle needs images of its class"
        )
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        bundle = options.bundle or toy.build(folder / "toy.clue")
        server = crashes.Server(bundle)
        opened, start = Bundle.open(bundle), time.monotonic()
        bench = crashes.Bench(folder, opened, server, options.label, options.images)
        result: dict[str, Any] = {
            "bundle": opened.name,
            "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "undisturbed_s": round(bench.seconds, 3),
            "calls": len(bench.calls),
            "weights_sha256": bench.new,
        }
        for part in options.parts.split(","):
            if part == "kills":
                result[part] = kills(bench, options.kills)
            else:
                result[part] = {"points": points, "faults": faults, "power": power}[part](bench)
        result["seconds"] = round(time.monotonic() - start, 1)
        server.close()
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
