from __future__ import annotations

import plistlib
import re
import tomllib
from pathlib import Path, PurePosixPath

import pytest

import exporters
from clue_mobile.errors import ClueError
from exporters import targets
from exporters.targets import android, host, ios, pi5

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


def test_androids_folder_is_the_gradle_project_of_the_library() -> None:
    files = dict(android.payload())
    # the same check as settings.gradle.kts: no demo app here
    assert not [path for path in files if path.startswith("app/")]
    built = files["clue/build.gradle.kts"].decode()
    for source in android.SOURCES:
        there = {
            path.relative_to(ROOT / "android_demo").as_posix()
            for path in (ROOT / "android_demo/clue/src" / source).rglob("*")
            if path.is_file()
        }
        assert there
        assert there <= files.keys()
        assert f'"src/{source}/kotlin"' in built
    sources = {path.split("/")[2] for path in files if path.startswith("clue/src/")}
    assert sources == set(android.SOURCES)
    for name in android.CONTRACT:
        assert files[f"contract/{name}"] == (ROOT / "contract" / name).read_bytes()
        assert f'"{name}"' in built
    # every alias of a build script stands in the catalogue
    catalogue = tomllib.loads(files["gradle/libs.versions.toml"].decode())
    entries = {f"libs.{name}" for name in catalogue["libraries"]} | {
        f"libs.plugins.{name}" for name in catalogue["plugins"]
    }
    scripts = built + files["build.gradle.kts"].decode()
    used = set(re.findall(r"libs\.[\w.]+", scripts))
    assert used
    assert {alias.replace("-", ".") for alias in entries} >= used
    # and what an entry takes its version from
    refs = {
        entry["version"]["ref"] for kind in ("libraries", "plugins") for entry in catalogue[kind].values()
    }
    assert refs <= catalogue["versions"].keys()
    assert files["settings.gradle.kts"]


def test_one_version_of_onnx_runtime_everywhere() -> None:
    """A request is bit-identical only on the same version."""
    catalogue = tomllib.loads((ROOT / "android_demo/gradle/libs.versions.toml").read_text())
    version = catalogue["versions"]["onnxruntime"]
    pom, check = ((ROOT / name).read_text() for name in ("android_demo/pom.xml", "tests/android/pom.xml"))
    assert f"<onnxruntime.version>{version}</onnxruntime.version>" in pom
    assert f"onnxruntime=={version}" in (ROOT / "constraints.txt").read_text().splitlines()
    for name in ("kotlin", "coroutines"):
        line = f"<{name}.version>{catalogue['versions'][name]}</{name}.version>"
        assert line in pom
        assert line in check


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


def test_the_ios_folder_is_the_swift_packages() -> None:
    files = dict(ios.payload())
    sources = [
        path for path in (ROOT / "ios_demo").rglob("*") if path.is_file() and path.suffix in (".swift", ".h")
    ]
    wanted = {
        str(path.relative_to(ROOT / "ios_demo"))
        for path in sources
        if path.relative_to(ROOT / "ios_demo").parts[0] in ("Sources", "Ort", "ExecuTorch", "Package.swift")
        and not any(part.startswith(".") for part in path.relative_to(ROOT / "ios_demo").parts)
    }
    assert len(wanted) > 50
    assert wanted <= files.keys()
    assert not [name for name in files if name.startswith(("Tests", "ClueDemo", "."))]
    assert b"Add Local" in files["README.md"]
    # what the manifest of the package names is there: targets by their folders, resources, module maps
    for package in ("", "Ort/", "ExecuTorch/"):
        manifest = files[f"{package}Package.swift"].decode()
        path = r"(?:,(?: dependencies: \[.*?\],)? path: \"([\w/]+)\")?"
        found = re.findall(rf"\.(?:target|systemLibrary)\(\s*name: \"(\w+)\"{path}", manifest)
        assert found
        for name, place in found:
            folder = f"{package}{place or f'Sources/{name}'}/"
            assert [path for path in files if path.startswith(folder)], name
    assert "Sources/ClueCore/Resources/PrivacyInfo.xcprivacy" in files
    assert "Sources/CSQLite/module.modulemap" in files


def test_the_privacy_manifest_declares_what_the_package_calls() -> None:
    """Apple's lists of functions that need a reason, as far as their names show them."""
    lists = {
        "FileTimestamp": r"\b[fl]?stat(?:at)?\(|\.(?:creation|modification)Date\b|contentModificationDate",
        "SystemBootTime": r"\bmach_absolute_time\(|\.systemUptime\b",
        "DiskSpace": r"\bf?statv?fs\(|\.systemFreeSize\b|volumeAvailableCapacity|volumeTotalCapacity",
        "UserDefaults": r"\bUserDefaults\b|@AppStorage",
        "ActiveKeyboards": r"activeInputModes",
    }
    for folder, place in (
        ("Sources", "Sources/ClueCore/Resources/PrivacyInfo.xcprivacy"),
        ("ClueDemo/ClueDemo", "ClueDemo/ClueDemo/PrivacyInfo.xcprivacy"),
    ):
        manifest = plistlib.loads((ROOT / "ios_demo" / place).read_bytes())
        assert manifest["NSPrivacyTracking"] is False
        assert manifest["NSPrivacyCollectedDataTypes"] == []
        declared = {
            entry["NSPrivacyAccessedAPIType"].removeprefix("NSPrivacyAccessedAPICategory")
            for entry in manifest["NSPrivacyAccessedAPITypes"]
        }
        text = "\n".join(path.read_text() for path in (ROOT / "ios_demo" / folder).rglob("*.swift"))
        assert declared == {name for name, pattern in lists.items() if re.search(pattern, text)}, folder
