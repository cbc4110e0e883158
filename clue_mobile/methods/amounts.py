"""How many images of a class a method needs, where that was measured."""

from __future__ import annotations

# The smallest number of photos that the model had never seen with which a method forgot the class (at most
# 10 % of its training images recognised) and kept the rest (at most 5 points of test accuracy lost) on
# digits_cnn: benchmarks/methods/README.md, part 5. Of 10 and 36 photos, 36 sufficed for BE and for CLUE with
# the preset `digits`; for the other methods no number did, so nothing can be said for them.
_LEAST = {"be": 36, "clue": 36}


def least(method: str) -> int | None:
    """The smallest number of images that sufficed, None where nothing is known."""
    return _LEAST.get(method)
