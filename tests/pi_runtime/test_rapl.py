from __future__ import annotations

from pathlib import Path

import pytest

from pi_runtime.power import PowerError
from pi_runtime.power.rapl import Rapl


def zone(root: Path, name: str, kind: str, energy: int, largest: int = 1000) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in (("name", kind), ("energy_uj", energy), ("max_energy_range_uj", largest)):
        (folder / file).write_text(f"{value}\n")
    return folder


def test_packages_are_added_and_what_is_inside_them_is_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 500, 262143328850)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 900, 262143328850)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 1)
    system = zone(tmp_path, "intel-rapl:2", "psys", 1)
    rapl = Rapl(tmp_path)
    assert rapl.scope == "2 processor packages, without the rest"
    assert rapl.read().joules == 0
    for folder, value in ((first, 2_000_500), (second, 1_000_900), (core, 10**9), (system, 10**9)):
        (folder / "energy_uj").write_text(str(value))
    assert rapl.read().joules == pytest.approx(3.0)
    assert rapl.read().joules == pytest.approx(3.0)


def test_a_counter_that_starts_again(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 990, 999)
    rapl = Rapl(tmp_path)
    for value, expected in ((999, 9), (0, 10), (5, 15), (4, 1014)):
        (folder / "energy_uj").write_text(str(value))
        assert rapl.read().joules == pytest.approx(expected / 1e6)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PowerError, match="no processor package in"):
        Rapl(tmp_path / "none")
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (folder / "energy_uj").unlink()
    with pytest.raises(PowerError, match=r"cannot read .*energy_uj \(No such file"):
        Rapl(tmp_path)
    (folder / "energy_uj").mkdir()  # what a test that runs as root can have instead of a file it may not read
    with pytest.raises(PowerError, match=r"cannot read .*energy_uj \(Is a directory\)"):
        Rapl(tmp_path)
    (folder / "energy_uj").rmdir()
    for text in ("", "12.5", "-1", "9" * 3 + "x"):
        (folder / "energy_uj").write_text(text)
        with pytest.raises(PowerError, match="instead of a number"):
            Rapl(tmp_path)


def test_permission_is_told_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    whole = Path.read_text

    def denied(path: Path, *arguments: str, **options: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return whole(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(PowerError, match=r"Permission denied\): let root allow it"):
        Rapl(tmp_path)
