"""One cell of the benchmark: all asked peers on one piece of work, in turns, and in fresh processes."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import figures
from pool import EXPORT_S, SETUP_S, TURN_S, Process, RowError, once
from work import EAGER, GEMM, HERE, LAYOUT, PEERS, PLAIN, REFERENCES, ROOT, Peer, Work, module_of
from worker import FIRST_LOSSES

from pi_runtime import device

Tell = Callable[[str], None]
TURN_LASTS_S, MOST_STEPS = 0.5, 5
PAUSE_S = 0.05  # threads of the peer before that wait for work by spinning have gone to sleep by then
FEWEST_ROUNDS = 3


@dataclass
class Settings:
    """rounds: of turns. starts: fresh processes of each peer. row_s: a peer that has used more time than this
    takes part in no more than FEWEST_ROUNDS. memory: bytes that workers may hold together."""

    cache: Path
    rounds: int
    starts: int
    row_s: float
    memory: int


@dataclass
class Cell:
    """What is gathered of each peer, by its name; a peer with an error is in no later stage."""

    work: Work
    peers: dict[str, Peer]
    settings: Settings
    tell: Tell
    errors: dict[str, RowError] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)

    def running(self) -> list[Peer]:
        """Those without an error so far."""
        return [peer for name, peer in self.peers.items() if name not in self.errors]

    def attempt(self, peer: Peer, what: str, do: Callable[[], Any]) -> Any:
        """do(), or None where the peer fails; a reference that fails ends the run."""
        self.tell(f"{peer.name}: {what}")
        try:
            return do()
        except RowError as error:
            self.fail(peer, error)
            return None

    def fail(self, peer: Peer, error: RowError) -> None:
        """Leave the peer out from here on."""
        if peer.name in REFERENCES:
            raise RuntimeError(f"{peer.name}, which others are compared with: {error.reason}") from error
        self.tell(f"{peer.name}: {error.status}: {error.reason}")
        self.errors[peer.name] = error


def measure(work: Work, peers: Sequence[Peer], settings: Settings, tell: Tell) -> dict[str, dict[str, Any]]:
    """A row for each peer, by its name. Raises RuntimeError where one of the references does not run."""
    cell = Cell(work, {peer.name: peer for peer in peers}, settings, tell)
    for peer in peers:
        if (reason := peer.why_not(work)) is not None:
            cell.fail(peer, RowError("not available", reason))
    for peer in cell.running():
        found = cell.attempt(peer, "versions", lambda p=peer: once(settings.cache, p, work, "facts", SETUP_S))
        cell.facts[peer.name] = found or {}
    for peer in cell.running():
        cell.attempt(peer, "files", lambda p=peer: make_files(p, work, settings.cache))

    first = _starts(cell, 1, "start to warm up")[0]
    memory = {name: int(answer["peak_rss"]) for name, answer in first.items()}
    taken: dict[str, dict[str, Any]] = {}
    for group in grouped([p.name for p in cell.running()], memory, settings.memory):
        taken |= _turns(cell, [cell.peers[name] for name in group])
    starts = _starts(cell, settings.starts, "start")

    rows = {}
    for name, peer in cell.peers.items():
        rows[name] = {
            "title": peer.title,
            "ours": peer.ours,
            "momentum": peer.momentum,
            "note": peer.note,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "losses": cell.losses.get(name, []),
            "reference_losses": cell.losses.get(_reference(peer), []),
            "versions": cell.facts.get(name, {}).get("versions", {}),
            "installed_bytes": cell.facts.get(name, {}).get("bytes"),
        }
        if name in cell.errors:
            rows[name] |= {"status": cell.errors[name].status, "reason": cell.errors[name].reason}
        else:
            rows[name] |= {"status": "ok", **taken[name]}
            if name != GEMM:
                rows[name] |= figures.start(starts, name, EAGER)
                rows[name]["warm_up_start_s"] = first[name]["start_s"]
    return rows


# files


def make_files(peer: Peer, work: Work, cache: Path) -> None:
    """Let the peer make what it needs, unless it has made that with the same sources before."""
    module = module_of(peer.name)
    stamp = work.place(peer.name) / f"made-{sources(peer)}"
    if stamp.exists():
        return
    work.place(peer.name).mkdir(parents=True, exist_ok=True)
    for old in work.place(peer.name).glob("made-*"):
        old.unlink()
    if hasattr(module, "export"):
        from environments import python_of

        once(cache, peer, work, "export", EXPORT_S, python_of(cache, "clue"))
    if hasattr(module, "build"):
        once(cache, peer, work, "build", EXPORT_S)
    stamp.touch()


def sources(peer: Peer) -> str:
    """A hash of the sources that the peer's files come from: its own, and ours where it is one of ours."""
    paths = [
        PEERS / f"{peer.name}.py",
        *sorted(PEERS.glob("_*.py")),
        HERE / "prepare.py",
        HERE / "networks.py",
    ]
    if peer.ours:
        paths += [p for room in ("clue_mobile", "exporters") for p in sorted((ROOT / room).rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


# fresh processes


def _starts(cell: Cell, times: int, what: str) -> list[dict[str, Any]]:
    """For each round the answers of a fresh process of each peer but GEMM, in turns."""
    found = []
    for number in range(times):
        answers = {}
        for peer in cell.running():
            if peer.name != GEMM:
                answer = cell.attempt(
                    peer,
                    f"{what} {number + 1}/{times}",
                    lambda p=peer: once(cell.settings.cache, p, cell.work, "fresh", SETUP_S),
                )
                if answer is not None:
                    answers[peer.name] = answer
        found.append(answers)
    return found


def grouped(names: Sequence[str], memory: dict[str, int], limit: int) -> list[list[str]]:
    """Groups that hold no more than `limit` bytes together, each with all the references."""
    always = [name for name in names if name in REFERENCES]
    rest = [name for name in names if name not in REFERENCES]
    base = sum(memory.get(name, 0) for name in always)
    groups: list[list[str]] = []
    held = 0
    for name in rest:
        if not groups or held + memory.get(name, 0) > limit:
            groups.append([])
            held = base
        groups[-1].append(name)
        held += memory.get(name, 0)
    return [always + group for group in groups] or [always]


# turns


def _reference(peer: Peer) -> str:
    return EAGER if peer.momentum else PLAIN


def _turns(cell: Cell, peers: Sequence[Peer]) -> dict[str, dict[str, Any]]:
    """Figures of time by name: workers are alive together and each takes its turn, A B C A B C."""
    workers: dict[str, Process] = {}
    try:
        steps = _begin(cell, peers, workers)
        ticks, began, own = device.processor_times(), time.monotonic(), _cpu_s(workers)
        wall, cpu = _rounds(cell, workers, steps)
        lasted, own = time.monotonic() - began, _cpu_s(workers) - own
        others = device.busy(ticks, device.processor_times(), own)
    finally:
        for process in workers.values():
            process.stop()
    run = datetime.now(UTC).isoformat(timespec="seconds")
    plain = PLAIN if PLAIN in workers else None
    taken = {}
    for name in workers:
        if name in cell.errors:
            continue
        flops = module_of(GEMM).FLOPS if name == GEMM else cell.work.flops
        taken[name] = figures.row(
            name,
            wall,
            cpu,
            flops=flops,
            gemm_flops=module_of(GEMM).FLOPS,
            eager=EAGER,
            plain=None if cell.peers[name].momentum and name != PLAIN else plain,
            gemm=GEMM,
        )
        taken[name] |= {"run": run, "steps_a_turn": steps[name], "lasted_s": round(lasted, 1)}
        taken[name]["others_busy"] = None if others is None else round(others, 3)
        taken[name]["wall_s"] = [round(r[name], 6) for r in wall if name in r]
        taken[name]["eager_wall_s"] = [round(r[EAGER], 6) for r in wall if name in r]
    return taken


def _begin(cell: Cell, peers: Sequence[Peer], workers: dict[str, Process]) -> dict[str, int]:
    """Start the workers and compare their first losses; returns how many steps make a turn of each."""
    steps: dict[str, int] = {}
    for peer in peers:

        def begin(peer: Peer = peer) -> dict[str, Any]:
            workers[peer.name] = process = Process(cell.settings.cache, peer, cell.work, "turns")
            process.answer(SETUP_S)
            return process.ask(TURN_S, do="run", steps=FIRST_LOSSES)

        found = cell.attempt(peer, "first losses", begin)
        if found is None:
            continue
        cell.losses[peer.name] = found["losses"]
        if peer.name != GEMM:
            wrong = figures.disagreement(
                found["losses"],
                cell.losses[_reference(peer)],
                figures.spread(cell.losses.get(LAYOUT, cell.losses[EAGER]), cell.losses[EAGER]),
            )
            if wrong is not None:
                cell.fail(peer, RowError("wrong", wrong))
                workers[peer.name].stop()
                continue
        once_s = statistics.median(found["seconds"][1:])
        steps[peer.name] = max(1, min(MOST_STEPS, int(TURN_LASTS_S / once_s)))
    return steps


def _rounds(
    cell: Cell, workers: dict[str, Process], steps: dict[str, int]
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """For each round the median seconds of a step by name, in wall and in processor time."""
    wall: list[dict[str, float]] = []
    cpu: list[dict[str, float]] = []
    used = dict.fromkeys(steps, 0.0)
    for number in range(cell.settings.rounds):
        wall.append({})
        cpu.append({})
        for name in steps:
            slow = number >= FEWEST_ROUNDS and used[name] > cell.settings.row_s
            if name in cell.errors or (slow and name not in REFERENCES):
                continue
            time.sleep(PAUSE_S)
            try:
                found = workers[name].ask(TURN_S, do="run", steps=steps[name])
            except RowError as error:
                cell.fail(cell.peers[name], error)
                continue
            used[name] += sum(found["seconds"])
            wall[-1][name] = statistics.median(found["seconds"])
            cpu[-1][name] = statistics.median(found["cpu"])
            if name != GEMM and any(loss != loss for loss in found["losses"]):
                cell.fail(cell.peers[name], RowError("wrong", "its loss became NaN in the turns"))
        shown = " ".join(f"{name} {1e3 * seconds:.0f}" for name, seconds in wall[-1].items())
        cell.tell(f"round {number + 1}/{cell.settings.rounds}, ms: {shown}")
    return wall, cpu


def _cpu_s(workers: dict[str, Process]) -> float:
    return sum(process.cpu_s() for process in workers.values())
