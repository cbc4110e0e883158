from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath

import pytest

import exporters
from clue_mobile.errors import ClueError
from exporters import targets
from exporters.targets import host, pi5

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_each_target(name: str) -> None:
    target = targets.get(name)
    assert target.RUNTIMES
    assert set(target.RUNTIMES) <= set(exporters.EXPORTERS)
    names = [name for name, _ in target.payload()]
    assert len(set(names)) == len(names)
    for path in map(PurePosixPath, names):
        assert not path.is_absolute()
        assert ".." not in path.parts
    assert all(isinstance(data, bytes) for _, data in target.payload())


def test_an_unknown_target_lists_the_choices() -> None:
    with pytest.raises(
        ClueError, match=r"unknown target 'pi55': did you mean 'pi5'\? Choices: android, host, ios, pi5"
    ):
        targets.get("pi55")


def test_the_host_needs_nothing() -> None:
    assert list(host.payload()) == []


def test_the_pis_folder_is_what_pip_installs() -> None:
    files = dict(pi5.payload())
    project = tomllib.loads(files["pyproject.toml"].decode())
    assert project["project"]["name"] == "clue-pi"
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["pi_runtime*", "contract*"]
    for package in ("pi_runtime", "contract"):
        sources = list((ROOT / package).rglob("*.py"))
        assert sources
        assert {str(path.relative_to(ROOT)) for path in sources} <= files.keys()
    module, function = project["project"]["scripts"]["clue-pi"].split(":")
    assert f"def {function}(" in files[f"{module.replace('.', '/')}/__init__.py"].decode()
    (listed,) = project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"]
    requirements = files[listed].decode().split()
    assert {"onnxruntime", "numpy", "safetensors"} <= {line.split(">")[0] for line in requirements}
    assert not [line for line in requirements if line.startswith("torch")]
    assert files["requirements.txt"] == files[listed]
    # data that the runtime reads through the contract package
    data = [
        f"contract/{path.name}" for path in (ROOT / "contract").iterdir() if path.suffix in (".json", ".sql")
    ]
    assert len(data) > 3
    assert set(data) <= files.keys()
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    assert all(any(PurePosixPath(name).match(pattern) for pattern in patterns) for name in data)


def test_what_python_and_editors_leave_behind_is_left_out(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "sub/b.json",
        "sub/__pycache__/b.pyc",
        "sub/__pycache__/x",
        "__pycache__/a.pyc",
        "c.pyc",
        ".a.py.swp",
        ".git/x",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert dict(pi5._files(tmp_path, "p")) == {"p/a.py": b"a.py", "p/sub/b.json": b"sub/b.json"}


def test_runtimes_are_the_targets_or_those_named_or_both() -> None:
    assert targets.runtimes(host, ()) == ("onnx",)
    assert targets.runtimes(host, ("litert", "litert")) == ("litert",)
    assert targets.runtimes(host, ("+litert", "+onnx")) == ("onnx", "litert")
    # has no programs for the plan, so it never comes alone
    assert targets.runtimes(host, ("executorch-joint",)) == ("onnx", "executorch-joint")
    assert targets.runtimes(host, ("executorch-joint", "+litert")) == ("onnx", "litert", "executorch-joint")
    assert targets.runtimes(host, ("litert", "+executorch-joint")) == ("litert", "executorch-joint")
    with pytest.raises(ClueError, match=r"names with \+ add to the target's runtimes \(onnx\)"):
        targets.runtimes(host, ("+litert", "onnx"))
