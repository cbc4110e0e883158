"""The packages that `export --target ios` writes into runtime/, as SwiftPM reads them on Linux, and by their
manifests' other branches, which are those for Apple platforms: what they ask for, name and have.

python tests/ios_demo/manifests.py FOLDER INSIDE COMMAND ...: writes them into FOLDER, which the swift command
sees as INSIDE; COMMAND ... runs it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from exporters.targets import ios

_ONNX_RUNTIME = "https://github.com/microsoft/onnxruntime-swift-package-manager"
_EXECUTORCH = "https://github.com/pytorch/executorch.git"


def main(folder: Path, inside: str, command: list[str]) -> None:
    """Raises AssertionError, or CalledProcessError where SwiftPM refuses a package."""
    shutil.rmtree(folder, ignore_errors=True)
    for system in ("linux", "apple"):
        for name, content in ios.payload():
            path = folder / system / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if system == "apple" and path.name == "Package.swift":
                # SwiftPM runs on Linux here: a condition that does not hold gives the other branch
                content = content.replace(b"#if os(Linux)", b"#if os(Windows)")
            path.write_bytes(content)

    def swift(package: str, *words: str) -> Any:
        call = [*command, "swift", "package", "--package-path", f"{inside}/{package}"]
        call += ["--scratch-path", f"{inside}/{package.replace('/', '.')}.build", *words]
        return json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE).stdout)

    def read(package: str, library: str, ios: str, macos: str, remote: str | None) -> None:
        found = swift(package, "describe", "--type", "json")
        systems = {each["name"]: each["version"] for each in found["platforms"]}
        assert systems == {"ios": ios, "macos": macos}, (package, systems)
        named = [each["url"] for each in found["dependencies"] if each["type"] != "fileSystem"]
        assert named == ([remote] if remote else []), (package, named)
        assert library in [product["name"] for product in found["products"]], package
        # SwiftPM has looked for the folders of the targets
        assert all(target["sources"] for target in found["targets"] if target["type"] == "library"), package

    for system, onnx_runtime in (("linux", None), ("apple", _ONNX_RUNTIME)):
        read(system, "ClueRuntime", "16.0", "13.0", None)
        read(f"{system}/Ort", "ClueOrt", "16.0", "14.0", onnx_runtime)
    read("apple/ExecuTorch", "ClueExecuTorch", "17.0", "14.0", _EXECUTORCH)
    (above,) = swift("linux/Ort", "show-dependencies", "--format", "json")["dependencies"]
    assert (above["name"], above["path"]) == ("ClueRuntime", f"{inside}/linux"), above
    print("SwiftPM has read the packages of an export")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
