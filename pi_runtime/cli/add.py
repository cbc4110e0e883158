"""`clue-pi add`: store samples of a class."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from pi_runtime.cli.common import Images, bundle_and_images, open_runtime, show
from pi_runtime.cli.ids import ranges
from pi_runtime.errors import ClueError
from pi_runtime.images import Source
from pi_runtime.runtime import Runtime

ABOUT = "store samples of a class"
EXAMPLE = "clue-pi add cifar.clue photos/ --label dog"
IMAGES = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--label", metavar="CLASS", help="name or index; left out, archives must have y")


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    path, paths = bundle_and_images(options.paths)
    with open_runtime(options, path) as runtime:
        label = None if options.label is None else runtime.bundle.label(options.label)
        given: Counter[int] = Counter()
        new: Counter[int] = Counter()
        ids: dict[int, list[int]] = {}
        images = Images(options, paths, runtime.bundle)
        try:
            for source in images:
                _add(runtime, source, label, given, new, ids)
        except ClueError as error:
            if not given:
                raise
            kept = f"the {sum(given.values())} images read before are stored"
            raise ClueError(f"{error}; {kept}, and adding them again does no harm") from error
        stored = {one: len(runtime.store.sample_ids(one)) for one in given}
        bundle = runtime.bundle
        result = [
            {
                "class": bundle.classes[one],
                "added": new[one],
                "duplicates": given[one] - new[one],
                "samples": ids[one],
                "stored": stored[one],
                "least_images": bundle.least_images or None,
            }
            for one in given
        ]
        if images.skipped and not given:
            raise ClueError("none of the images can be read")
    lines = [
        f"{bundle.classes[one]}: {new[one]} added, {given[one] - new[one]} there already, "
        f"samples {ranges(ids[one])}, {stored[one]} stored"
        for one in given
    ]
    if images.skipped:
        lines.append(f"{len(images.skipped)} files skipped")
    show(options, result, lines)
    for one, count in stored.items():
        if count < bundle.least_images:
            print(
                f"clue-pi: warning: {count} images of {bundle.classes[one]} are stored; fewer than "
                f"{bundle.least_images} were too few for {bundle.method} where it was measured",
                file=sys.stderr,
            )
    return 0


def _add(
    runtime: Runtime,
    source: Source,
    label: int | None,
    given: Counter[int],
    new: Counter[int],
    ids: dict[int, list[int]],
) -> None:
    if source.labels is None and label is None:
        raise ClueError(f"{source.names[0]} has no label: give --label")
    if source.labels is not None and label is not None and (source.labels != label).any():
        raise ClueError(f"{source.names[0]}: y has other labels than {label}: leave out --label")
    labels = [label] * len(source.names) if source.labels is None else source.labels.tolist()
    for one in [runtime.bundle.label(index) for index in sorted(set(labels))]:
        chosen = source.images[[other == one for other in labels]]
        given[one] += len(chosen)
        new[one] += len(runtime.add(chosen, one))
        found = (i for i in runtime.store.find(chosen, one) if i is not None)
        ids[one] = list(dict.fromkeys([*ids.get(one, []), *found]))
