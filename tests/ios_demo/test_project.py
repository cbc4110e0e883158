"""The demo app's Xcode project, read as Xcode reads it: a property list of objects that name each other."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parents[2] / "ios_demo" / "ClueDemo"
_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\]|\\.)*"|[{}()=;,]|[\w./$]+|\s+', re.DOTALL)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found, f"not a property list at {text[at : at + 40]!r}"
        at = found.end()
        token = found[0]
        if not token.isspace() and not token.startswith(("//", "/*")):
            yield token


def _value(tokens: Iterator[str], token: str) -> Any:
    if token == "{":
        entries: dict[str, Any] = {}
        while (key := next(tokens)) != "}":
            assert next(tokens) == "="
            assert key not in entries
            entries[key.strip('"')] = _value(tokens, next(tokens))
            assert next(tokens) == ";"
        return entries
    if token == "(":
        items = []
        while (item := next(tokens)) != ")":
            items.append(_value(tokens, item))
            assert next(tokens) == ","
        return items
    assert token not in "})=;,"
    return token.strip('"')


def _project() -> dict[str, Any]:
    tokens = _tokens((DEMO / "ClueDemo.xcodeproj" / "project.pbxproj").read_text(encoding="utf-8"))
    project = _value(tokens, next(tokens))
    assert next(tokens, None) is None
    return dict(project)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif re.fullmatch(r"[0-9A-F]{24}", value):
        yield value


def test_every_reference_is_there_and_every_object_is_used() -> None:
    project = _project()
    objects = project["objects"]
    named = {project["rootObject"], *_references(list(objects.values()))}
    assert named == set(objects)


def test_the_app_has_its_sources_its_sample_and_the_packages_products() -> None:
    project = _project()
    objects = project["objects"]
    (target,) = [each for each in objects.values() if each["isa"] == "PBXNativeTarget"]
    (folder,) = [objects[each] for each in target["fileSystemSynchronizedGroups"]]
    assert list((DEMO / folder["path"]).glob("*.swift"))
    phases = {objects[each]["isa"]: objects[each]["files"] for each in target["buildPhases"]}
    (resource,) = [objects[objects[each]["fileRef"]]["path"] for each in phases["PBXResourcesBuildPhase"]]
    # a clean clone has the folder, or Xcode could not copy it; its content is made
    assert (DEMO / resource / "README.md").is_file()
    assert {f"/{resource}/*", f"!/{resource}/README.md"} <= set((DEMO / ".gitignore").read_text().split())
    products = {objects[each]["productName"] for each in target["packageProductDependencies"]}
    linked = {
        objects[objects[each]["productRef"]]["productName"] for each in phases["PBXFrameworksBuildPhase"]
    }
    assert products == linked
    packages = {key: each for key, each in objects.items() if each["isa"] == "XCLocalSwiftPackageReference"}
    for dependency in [objects[each] for each in target["packageProductDependencies"]]:
        package = DEMO / packages[dependency["package"]]["relativePath"]
        manifest = (package / "Package.swift").read_text(encoding="utf-8")
        assert dependency["productName"] in re.findall(r'\.library\(name: "(\w+)"', manifest)
    assert objects[project["rootObject"]]["packageReferences"] == list(packages)


def test_the_background_task_is_declared_by_the_name_that_the_app_uses() -> None:
    configurations = [
        each for each in _project()["objects"].values() if each["isa"] == "XCBuildConfiguration"
    ]
    (path,) = {
        each["buildSettings"]["INFOPLIST_FILE"]
        for each in configurations
        if "INFOPLIST_FILE" in each["buildSettings"]
    }
    declared = plistlib.loads((DEMO / path).read_bytes())
    used = re.findall(r'identifier: "([\w.]+)"', (DEMO / "ClueDemo" / "ClueDemoApp.swift").read_text())
    assert declared["BGTaskSchedulerPermittedIdentifiers"] == used
    assert declared["UIBackgroundModes"] == ["processing"]


def test_no_file_outgrows_one_idea() -> None:
    files = [path for path in DEMO.parent.rglob("*.swift") if ".build" not in path.parts]
    assert len(files) > 90
    assert not [path for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 400]
