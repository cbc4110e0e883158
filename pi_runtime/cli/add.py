"""`clue-pi add`: store samples of a class."""

from __future__ import annotations

import argparse
from collections import Counter

from pi_runtime import images
from pi_runtime.cli.common import READ_AT_ONCE, bundle_and_images, open_runtime, show
from pi_runtime.cli.ids import ranges
from pi_runtime.errors import ClueError

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
        for source in images.batched(images.read(paths, runtime.bundle), READ_AT_ONCE):
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
        classes = runtime.bundle.classes
        result = [
            {
                "class": classes[one],
                "added": new[one],
                "duplicates": given[one] - new[one],
                "samples": ids[one],
            }
            for one in given
        ]
    show(
        options,
        result,
        [
            f"{classes[one]}: {new[one]} added, {given[one] - new[one]} there already, "
            f"samples {ranges(ids[one])}"
            for one in given
        ],
    )
    return 0
