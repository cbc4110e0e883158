"""Android: one ExecuTorch file, ONNX programs, and the Kotlin library as a Gradle project in runtime/."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from exporters.targets.pi5 import _files

RUNTIMES = ("executorch", "onnx")
# What of src/ goes into the AAR: src/jvm stands in for Android in our tests, src/test is them.
SOURCES = ("core", "ort", "executorch", "main")
# What the library reads at run time; Gradle packs them as resources.
CONTRACT = ("manifest.schema.json", "receipt.schema.json", "schema.sql")


def payload() -> Iterator[tuple[str, bytes]]:
    """The project of the module :clue, without the demo app, and the files of the contract that it reads."""
    project, contract = resources.files("android_demo"), resources.files("contract")
    for name in ("settings.gradle.kts", "build.gradle.kts", "gradle.properties", "README.md"):
        yield name, project.joinpath(name).read_bytes()
    yield from _files(project.joinpath("gradle"), "gradle")
    for name in ("build.gradle.kts", "consumer-rules.pro"):
        yield f"clue/{name}", project.joinpath("clue", name).read_bytes()
    for source in SOURCES:
        yield from _files(project.joinpath("clue", "src", source), f"clue/src/{source}")
    for name in CONTRACT:
        yield f"contract/{name}", contract.joinpath(name).read_bytes()
