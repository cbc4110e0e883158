"""What must hold before new weights serve (docs/runtime-contract.md, "Verify before swap")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pi_runtime import plan as plans
from pi_runtime import probes, rng
from pi_runtime.bundle import Bundle
from pi_runtime.engine import Array
from pi_runtime.errors import ClueError
from pi_runtime.options import Options
from pi_runtime.request import Refused, Runner
from pi_runtime.weights import WeightsFile

Int64 = NDArray[np.int64]
HOLDOUT_AT_MOST = 0.5


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [N, H, W, C] with their labels int64 [N]."""

    images: NDArray[np.uint8]
    labels: Int64


# --- the samples


def check_holdout(share: float | None, kind: str) -> None:
    """Raises ClueError for a share of the samples held out that makes no sense."""
    if share is not None and not 0 <= share <= HOLDOUT_AT_MOST:
        raise ClueError(f"holdout is {share}: it must be from 0 to {HOLDOUT_AT_MOST}, a share of the samples")
    if share and kind == "samples":
        raise ClueError(
            "a request of chosen samples cannot hold any out (holdout must be 0): each is to be forgotten"
        )


def planned(n: int, share: float | None) -> int:
    """How many of n samples the plan has."""
    return n - int((share or 0.0) * n)


def split(
    images: NDArray[np.uint8], labels: Int64, share: float | None, seed: int
) -> tuple[Labelled, Labelled]:
    """The samples of the plan, and those that are held out of it; each in their order."""
    n = len(labels)
    count = planned(n, share)
    if count == n:
        return Labelled(images, labels), Labelled(images[:0], labels[:0])
    order = rng.permutation(seed, 0, n, rng.STREAM_HOLDOUT)
    mine, held = np.sort(order[:count]), np.sort(order[count:])
    return Labelled(images[mine], labels[mine]), Labelled(images[held], labels[held])


def accuracy_limit(bundle: Bundle, kind: str, given: float | None) -> float:
    """The percent that the accuracy on the samples must come down to; `given` is the request's own.

    Raises ClueError when it is out of range, or a request of samples has none.
    """
    bundles = bundle.forget_accuracy_at_most if kind == "class" else bundle.sample_accuracy_at_most
    limit = bundles if given is None else given
    if limit is None:
        raise ClueError(
            f"{bundle.name} does not say how accurate it is on images that it never saw, which a request of "
            "samples comes down to: give the accuracy in percent (--at-most), or export with --guard-data"
        )
    if not 0 <= limit <= 100:
        raise ClueError(f"verify_at_most is {limit}: it must be from 0 to 100 percent")
    return limit


def aims(bundle: Bundle, kind: str, options: Options) -> dict[str, float]:
    """Check what a new request asks of its outcome; the scalars by which its plan aims at that.

    A request of samples is to end at test-like accuracy, not far below: where the plan has a stop whose limit
    is a scalar, that gets the request's limit, and one that would never measure does so each time. Raises
    ClueError for options that make no sense.
    """
    check_holdout(options.holdout, kind)
    limit = accuracy_limit(bundle, kind, options.accuracy_at_most)
    found: dict[str, float] = {}
    if kind == "class":
        return found
    for _, node in plans.leaves(bundle.plan):
        if not isinstance(node, plans.StopNode):
            continue
        if isinstance(node.accuracy_at_most, str):
            found[node.accuracy_at_most] = limit
        if isinstance(node.every, str) and bundle.scalars[node.every] == 0:
            found[node.every] = 1.0
    return found


# --- the checks


@dataclass(frozen=True)
class Checks:
    """What a request's new weights are held to.

    `accuracy_at_most` in percent; `forgotten`: the classes that are or are being forgotten; `held_out`:
    samples that the plan did not have.
    """

    accuracy_at_most: float
    forgotten: frozenset[int]
    held_out: Labelled


def verify(
    bundle: Bundle, runner: Runner, old: Mapping[str, Array], checks: Checks, evidence: dict[str, Any]
) -> None:
    """Check the weights that `runner` has arrived at, `old` being those of before.

    Fills in the evidence: forget_accuracy_after, accuracy_at_most, held_out, guard, collapse. Raises Refused
    with all that does not hold.
    """
    _check_state(old, runner.values.state())
    before = _old_state(bundle, runner, old)
    limit = checks.accuracy_at_most
    after = runner.accuracy("predict")
    evidence |= {"forget_accuracy_after": after, "accuracy_at_most": limit}
    wrong = []
    if after > limit:
        wrong.append(f"the forget accuracy is {after:.1f} %, it had to come down to {limit:.1f} %")
    evidence["held_out"] = held = _held_out(runner, before, checks.held_out)
    if held is not None and held["accuracy_after"] > limit:
        wrong.append(
            f"the accuracy on the {held['samples']} samples held out is {held['accuracy_after']:.1f} %, "
            f"it had to come down to {limit:.1f} %"
        )
    evidence["guard"] = guard = _guard(bundle, runner, before, checks.forgotten)
    if guard is not None and guard["accuracy_before"] - guard["accuracy_after"] > guard["drop_at_most"]:
        wrong.append(
            f"the accuracy on the other classes fell from {guard['accuracy_before']:.1f} % to "
            f"{guard['accuracy_after']:.1f} % on the {guard['images']} guard images, by more than "
            f"{guard['drop_at_most']:.1f} points"
        )
    evidence["collapse"] = collapse = None if guard else _collapse(bundle, runner, before, checks.forgotten)
    wrong += [] if collapse is None else _collapsed(collapse)
    if wrong:
        raise Refused("; ".join(wrong))


def _check_state(before: Mapping[str, Array], after: Mapping[str, Array]) -> None:
    """Raise Refused unless every array is finite and at least one differs."""
    changed = False
    for key, array in after.items():
        if not np.isfinite(array).all():
            raise Refused(f"the new {key} are not finite")
        changed = changed or not np.array_equal(before[key], array)
    if not changed:
        raise Refused("the weights did not change")


def _old_state(bundle: Bundle, runner: Runner, old: Mapping[str, Array]) -> dict[str, Array]:
    """The old weights by the names of their values. They go where a step would write next: those arrays are
    free now, so this takes no memory."""
    found = {}
    for name, value in bundle.values.items():
        if value.role == "state":
            array = runner.values.target(name)
            if array is runner.values.current(name):
                array = np.empty_like(array)
            array[...] = old[str(value.weights_key)]
            found[name] = array
    return found


def _accuracies(runner: Runner, before: Mapping[str, Array], given: Labelled) -> tuple[float, float]:
    """Percent given their label by the old and by the new weights."""
    every = np.arange(len(given.labels))
    old, new = runner.logits(given.images, every, before), runner.logits(given.images, every)
    right = [int(np.count_nonzero(found.argmax(axis=1) == given.labels)) for found in (old, new)]
    return 100.0 * right[0] / len(given.labels), 100.0 * right[1] / len(given.labels)


def _held_out(runner: Runner, before: Mapping[str, Array], held: Labelled) -> dict[str, Any] | None:
    if not len(held.labels):
        return None
    old, new = _accuracies(runner, before, held)
    return {"samples": len(held.labels), "accuracy_before": old, "accuracy_after": new}


def read_guard(bundle: Bundle) -> Labelled | None:
    """The guard images, None for a bundle without. Raises ClueError when their file does not fit it."""
    if bundle.guard is None:
        return None
    arrays = WeightsFile(bundle.file(bundle.guard))
    images, labels = arrays.typed("images", np.uint8), arrays.typed("labels", np.int64)
    channels, height, width = bundle.input_shape
    if images.shape[1:] != (height, width, channels) or labels.shape != images.shape[:1] or not len(labels):
        bundle.fail(f"{bundle.guard} has images {list(images.shape)} with labels {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= len(bundle.classes):
        bundle.fail(f"{bundle.guard} has labels from {labels.min()} to {labels.max()}")
    return Labelled(images, labels)


def _guard(
    bundle: Bundle, runner: Runner, before: Mapping[str, Array], forgotten: frozenset[int]
) -> dict[str, Any] | None:
    guard = read_guard(bundle)
    if guard is None or bundle.guard_drop_at_most is None:
        return None
    others = ~np.isin(guard.labels, list(forgotten))
    if not others.any():
        return None
    old, new = _accuracies(runner, before, Labelled(guard.images[others], guard.labels[others]))
    return {
        "images": int(np.count_nonzero(others)),
        "accuracy_before": old,
        "accuracy_after": new,
        "drop_at_most": bundle.guard_drop_at_most,
    }


def _collapse(
    bundle: Bundle, runner: Runner, before: Mapping[str, Array], forgotten: frozenset[int]
) -> dict[str, Any] | None:
    if bundle.collapse is None or len(forgotten) >= len(bundle.classes):
        return None
    made = probes.make(runner.job.images, runner.job.seed, bundle.collapse.probes)
    every = np.arange(len(made))
    old, new = runner.logits(made, every, before), runner.logits(made, every)
    found = probes.compare(old, new, sorted(forgotten))
    limits = asdict(bundle.collapse)
    del limits["probes"]  # as many as were made are in `found`
    return asdict(found) | limits


def _collapsed(found: Mapping[str, Any]) -> Iterator[str]:
    made = f"of {found['probes']} made-up images"
    if found["kept"] < found["kept_at_least"]:
        yield (
            f"the model collapsed: only {found['kept']:.1f} % {made} are still taken for the same class, it "
            f"had to be {found['kept_at_least']:.1f} %"
        )
    # A model that took all of them for one class before says nothing by it.
    if found["largest_share_after"] > found["largest_share_at_most"] >= found["largest_share_before"]:
        yield (
            f"the model collapsed: {found['largest_share_after']:.1f} % {made} fall on one class, it had to "
            f"be at most {found['largest_share_at_most']:.1f} %"
        )
