"""The command line `clue-pi`: add, forget, predict, log, check."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pi_runtime import images
from pi_runtime.bundle import Bundle
from pi_runtime.errors import ClueError
from pi_runtime.progress import ProgressLine
from pi_runtime.runtime import Runtime

_READ_AT_ONCE = 256  # image files decoded before they are stored or classified

_BUNDLE = (
    "BUNDLE is a .clue folder; left out, it is CLUE_BUNDLE or the bundle that the current folder belongs to."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    0: done. 1: the request failed its checks, or a golden check failed. 2: an error, told in one line.
    130: cancelled.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except ClueError as error:
        print(f"clue-pi: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output went away (clue-pi log | head): nothing to tell, and nobody to tell it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clue-pi", description="Let an image classifier forget a class, on this device and offline."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], about: str, example: str, paths: bool
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}. {_BUNDLE}",
            epilog=f"example: {example}",
        )
        if paths:
            added.add_argument(
                "paths",
                nargs="+",
                type=Path,
                metavar="[BUNDLE] IMAGES",
                help="image files, folders of them, .npz archives (x or images, and maybe y)",
            )
        else:
            added.add_argument("paths", nargs="?", type=Path, metavar="BUNDLE", help="the bundle's folder")
        added.add_argument("--store", type=Path, metavar="DIR", help="folder of samples, weights and records")
        added.add_argument("--threads", type=int, metavar="N", help="threads (default: all processors)")
        added.add_argument("--engine", metavar="NAME", help="onnx or litert (default: the first that can)")
        added.add_argument("--json", action="store_true", help="print the result as JSON")
        added.set_defaults(command=run)
        return added

    add = command(
        "add", _add, "store samples of a class", "clue-pi add cifar.clue photos/ --label dog", paths=True
    )
    add.add_argument("--label", metavar="CLASS", help="name or index; left out, archives must have y")

    forget = command(
        "forget", _forget, "forget a class with its stored samples",
        "clue-pi forget cifar.clue --label dog", paths=False,
    )  # fmt: skip
    forget.add_argument("--label", required=True, metavar="CLASS", help="name or index")
    forget.add_argument("--seed", type=int, metavar="N", help="for the same result again (default: drawn)")
    forget.add_argument(
        "--set", action="append", default=[], metavar="NAME=X", help="a scalar of the method, may be repeated"
    )
    forget.add_argument(
        "--at-most", type=float, metavar="P", help="percent that the forget accuracy must come down to"
    )
    forget.add_argument("--dry-run", action="store_true", help="tell what it would take, change nothing")
    forget.add_argument("--quiet", action="store_true", help="no progress")

    predict = command(
        "predict", _predict, "classify images", "clue-pi predict cifar.clue cat.jpg", paths=True
    )
    predict.add_argument("--hide", action="store_true", help="never answer with a forgotten class")

    log = command(
        "log", _log, "show the requests so far and their costs", "clue-pi log cifar.clue", paths=False
    )
    log.add_argument("--requests", action="store_true", help="with --json: the requests, not the records")

    command(
        "check", _check, "compare this device's results with the bundle's golden ones",
        "clue-pi check cifar.clue", paths=False,
    )  # fmt: skip
    return parser


# --- finding bundle and store


def _is_bundle(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def _default_bundle() -> Path:
    named = os.environ.get("CLUE_BUNDLE")
    if named:
        return Path(named)
    here = Path.cwd()
    # A bundle's runtime/ is inside the bundle.
    for folder in (here, here.parent):
        if _is_bundle(folder):
            return folder
    raise ClueError("no bundle found: name its folder (it holds manifest.json) first, or set CLUE_BUNDLE")


def _bundle_and_images(paths: list[Path]) -> tuple[Path, list[Path]]:
    if not _is_bundle(paths[0]):
        return _default_bundle(), paths
    if len(paths) == 1:
        raise ClueError(f"no images given, only the bundle {paths[0]}")
    return paths[0], paths[1:]


def _default_store(bundle: Bundle) -> Path:
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "clue-pi" / (Path(bundle.name).name.lstrip(".") or "bundle")


def _open(options: argparse.Namespace, path: Path | None) -> Runtime:
    bundle = Bundle.open(path or _default_bundle())
    store = options.store or _default_store(bundle)
    return Runtime.for_bundle(bundle, store, threads=options.threads, engine=options.engine)


# --- commands


def _add(options: argparse.Namespace) -> int:
    path, paths = _bundle_and_images(options.paths)
    with _open(options, path) as runtime:
        label = None if options.label is None else runtime.bundle.label(options.label)
        given: Counter[int] = Counter()
        new: Counter[int] = Counter()
        for source in images.batched(images.read(paths, runtime.bundle), _READ_AT_ONCE):
            if source.labels is None and label is None:
                raise ClueError(f"{source.names[0]} has no label: give --label")
            if source.labels is not None and label is not None and (source.labels != label).any():
                raise ClueError(f"{source.names[0]}: y has other labels than {label}: leave out --label")
            labels = [label] * len(source.names) if source.labels is None else source.labels.tolist()
            for one in [runtime.bundle.label(index) for index in sorted(set(labels))]:
                chosen = source.images[[other == one for other in labels]]
                given[one] += len(chosen)
                new[one] += len(runtime.add(chosen, one))
        classes = runtime.bundle.classes
        result = [
            {"class": classes[one], "added": new[one], "duplicates": given[one] - new[one]} for one in given
        ]
    _print(
        options,
        result,
        [f"{r['class']}: {r['added']} added, {r['duplicates']} there already" for r in result],
    )
    return 0


def _forget(options: argparse.Namespace) -> int:
    scalars = dict(_scalar(text) for text in options.set)
    with _open(options, options.paths) as runtime:
        if options.dry_run:
            plan = runtime.dry_run(options.label, scalars=scalars)
            _print(options, plan, [f"{key}: {value}" for key, value in plan.items()])
            return 0
        bundle = runtime.bundle
        if bundle.batch != bundle.tuned_batch and not options.quiet:
            print(
                f"clue-pi: note: {bundle.method} was tuned at batch {bundle.tuned_batch}, "
                f"this bundle has batch {bundle.batch}",
                file=sys.stderr,
            )
        line = None if options.quiet else ProgressLine(sys.stderr)
        with _cancel_on_interrupt() as cancelled:
            result = runtime.forget(
                options.label,
                seed=options.seed,
                scalars=scalars,
                verify_at_most=options.at_most,
                progress=line,
                cancel=cancelled,
            )
        if line is not None:
            line.close()
        _print(options, dataclasses.asdict(result), _told(result.status, result.reason, result.evidence))
    return {"done": 0, "failed": 1}.get(result.status, 130)


def _told(status: str, reason: str | None, evidence: Mapping[str, Any]) -> list[str]:
    lines = [f"{status}: {reason}" if reason else status]
    if "forget_accuracy_after" in evidence:
        before, after = evidence["forget_accuracy_before"], evidence["forget_accuracy_after"]
        lines.append(f"forget accuracy: {before:.1f} % before, {after:.1f} % after")
    if "epochs_run" in evidence:
        early = ", stopped early" if evidence["stopped_early"] else ""
        size = f"{evidence['samples']} samples, {evidence['epochs_run']} epochs{early}"
        lines.append(f"{size}, {evidence['steps']} steps")
    if status != "done":
        lines.append("the old weights are still served")
    return lines


def _predict(options: argparse.Namespace) -> int:
    import numpy as np

    path, paths = _bundle_and_images(options.paths)
    with _open(options, path) as runtime:
        classes, forgotten = runtime.bundle.classes, set(runtime.forgotten)
        hidden = np.array([options.hide and name in forgotten for name in classes])
        if hidden.all():
            raise ClueError("every class was forgotten: nothing is left to answer with --hide")
        results: list[dict[str, Any]] = []
        for source in images.batched(images.read(paths, runtime.bundle), _READ_AT_ONCE):
            logits = runtime.predict(source.images).astype(np.float64)
            logits[:, hidden] = -np.inf
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = odds / odds.sum(axis=1, keepdims=True)
            for name, row in zip(source.names, probabilities, strict=True):
                best = int(row.argmax())
                results.append(
                    {
                        "image": name,
                        "class": classes[best],
                        "probability": round(float(row[best]), 6),
                        "forgotten": classes[best] in forgotten,
                    }
                )
    lines = [
        f"{r['image']}: {r['class']} {r['probability']:.3f}{' forgotten: true' if r['forgotten'] else ''}"
        for r in results
    ]
    _print(options, results, lines)
    return 0


def _log(options: argparse.Namespace) -> int:
    with _open(options, options.paths) as runtime:
        requests, records = runtime.store.requests(), runtime.log()
    lines = []
    for request in requests:
        told = _told(request["status"], request["reason"], request["evidence"])
        lines.append(f"request {request['id']}, {request['class']}, {request['created']}: {'; '.join(told)}")
        for record in records:
            if record["request_id"] == request["id"]:
                lines.append(_cost_line(record))
    _print(options, requests if options.requests else records, lines or ["no requests so far"])
    return 0


def _cost_line(record: dict[str, Any]) -> str:
    p50 = record["step_ms"]["p50"]
    step = "" if p50 is None else f", {p50:.0f} ms a step"
    return (
        f"  {record['phase']}: {record['wall_s']:.1f} s, {record['steps']} steps{step}, "
        f"{record['peak_mem_bytes'] / 2**20:.0f} MiB"
    )


def _check(options: argparse.Namespace) -> int:
    with _open(options, options.paths) as runtime:
        results = runtime.check()
    lines = [f"{'ok' if r.ok else 'FAILED'} {r.program}.{r.output}: error {r.error:.1e}" for r in results]
    # JSON has no infinity.
    shown = [{**dataclasses.asdict(r), "error": r.error if r.error < float("inf") else None} for r in results]
    _print(options, shown, lines)
    return 0 if all(r.ok for r in results) else 1


# --- small things


def _scalar(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    try:
        if not (name and separator):
            raise ValueError
        return name, float(value)
    except ValueError:
        raise ClueError(f"--set {text!r}: write NAME=NUMBER, such as lr=0.001") from None


def _print(options: argparse.Namespace, result: object, lines: Sequence[str]) -> None:
    print(json.dumps(result, indent=1) if options.json else "\n".join(lines))


@contextmanager
def _cancel_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the request to end after the running operation; a second one interrupts it at once."""
    cancelled = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()
        print("\nclue-pi: cancelling after this step; the old weights stay", file=sys.stderr)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield cancelled.is_set
    finally:
        signal.signal(signal.SIGINT, before)
