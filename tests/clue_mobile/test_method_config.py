from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

from clue_mobile import methods
from clue_mobile.errors import ClueError
from clue_mobile.methods.config import Checked


@dataclass(frozen=True)
class Example(Checked):
    """One field of each kind."""

    kind: Literal["one", "two"] = "one"
    on: bool = False
    count: int = 3
    rate: float = 0.5

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"count": (1, 9), "rate": (0, 1)}


@pytest.mark.parametrize(("given", "message"), [
    ({"kind": "three"}, "kind must be one of one, two, not 'three'"),
    ({"on": 1}, "on must be true or false, not 1"),
    ({"count": 2.0}, "count must be a whole number, not 2.0"),
    ({"count": 0}, "count must be at least 1, not 0"),
    ({"rate": 2}, "rate must be at most 1, not 2"),
    ({"rate": "much"}, "rate must be a finite number, not 'much'"),
    ({"rate": True}, "rate must be a finite number, not True"),
])  # fmt: skip
def test_fields_are_checked_by_their_types_and_limits(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=f"^{message}$"):
        Example(**given)


def test_whole_numbers_do_for_a_float() -> None:
    assert Example(rate=1, count=9).rate == 1


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_names_itself_and_has_defaults(name: str) -> None:
    method = methods.get(name)
    assert method.TITLE
    assert method.SOURCE
    methods.configure(name, {})


@pytest.mark.parametrize(("name", "given", "message"), [
    ("lu", {"copies": 0}, "copies must be at least 1"),
    ("bs", {"labels": "true"}, "labels must be one of any, other"),
    ("be", {"keep_shadow": "no"}, "keep_shadow must be true or false"),
    ("unsir", {"reading": "slides"}, "reading must be one of code, paper"),
    ("ssd", {"alpha": -1}, "alpha must be at least 0"),
    ("ga", {"tau": 1}, "unknown hyperparameter of ga 'tau'"),
])  # fmt: skip
def test_the_methods_own_fields(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        methods.configure(name, given)
