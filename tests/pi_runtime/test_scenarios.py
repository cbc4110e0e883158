from __future__ import annotations

from pathlib import Path

import pytest
import scenarios

FILES = sorted(scenarios.FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, tmp_path: Path) -> None:
    player = scenarios.Player(tmp_path)
    try:
        player.play(scenarios.load(path))
    finally:
        player.close()


def test_every_word_is_documented() -> None:
    words = {name.partition("_")[2] for name in vars(scenarios.Player) if name.startswith(("do_", "then_"))}
    found = scenarios.documented((scenarios.FOLDER.parent / "scenarios.md").read_text(encoding="utf-8"))
    assert words == found


def test_the_steps_are_looked_at(tmp_path: Path) -> None:
    player = scenarios.Player(tmp_path)
    opening = {"do": "open", "bundle": "toy"}
    for wrong in ({"samples": {"cat": 1}}, {"forgotten": ["cat"]}, {"keys": 1}, {"generations": []}):
        with pytest.raises(AssertionError):
            player.play([opening, {"then": wrong}])
    with pytest.raises(BaseException, match="DID NOT RAISE"):
        player.play([{**opening, "error": ["cat"]}])
    player.close()
