"""Dependencies point one way, the device runtime stands alone, and no file outgrows one idea."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("clue_mobile", "exporters", "pi_runtime", "contract")

# Each room may import those in its row, and nothing else of ours. A new room needs a row.
MAY_IMPORT: dict[str, set[str]] = {
    "contract": set(),
    "pi_runtime": {"contract"},
    "clue_mobile.errors": {"pi_runtime"},
    "clue_mobile.spec": {"errors"},
    "clue_mobile.plan": set(),
    "clue_mobile.lowering": {"errors"},
    "clue_mobile.models": {"errors", "spec"},
    "clue_mobile.flat": {"errors", "spec", "plan"},
    "clue_mobile.methods": {
        "errors", "spec", "plan", "flat", "lowering", "models", "training", "pi_runtime",
    },
    "clue_mobile.memory": {"errors", "plan", "flat", "lowering"},
    "clue_mobile.cuts": {"errors", "plan", "flat"},
    "clue_mobile.mixed": {"errors", "plan", "flat"},
    "clue_mobile.programs": {
        "errors", "plan", "flat", "lowering", "methods", "memory", "cuts", "mixed",
    },
    "clue_mobile.data": {"errors", "pi_runtime"},
    "clue_mobile.training": {"errors", "spec", "models"},
    "clue_mobile.evaluate": {"errors", "data", "spec", "training"},
    "clue_mobile.report": {"errors", "version", "models", "evaluate"},
    "exporters": {
        "errors", "plan", "flat", "lowering", "memory", "programs", "pi_runtime", "contract", "exporters",
    },
    "clue_mobile.kernel_costs": {"errors", "plan", "lowering", "programs", "exporters", "pi_runtime"},
    "clue_mobile.bundle": {
        "errors", "version", "spec", "plan", "flat", "programs", "exporters", "pi_runtime",
    },
    "clue_mobile.export": {
        "errors", "spec", "plan", "flat", "lowering", "methods", "programs", "kernel_costs", "bundle",
        "exporters", "pi_runtime",
    },
    "clue_mobile.engines": {"errors", "engines", "pi_runtime"},
    "clue_mobile.parity": {
        "errors", "spec", "plan", "flat", "lowering", "methods", "programs", "bundle", "pi_runtime",
    },
    "clue_mobile.push": {"errors", "push", "pi_runtime"},
    "clue_mobile.gates": {"errors", "parity", "plan", "pi_runtime"},
    "clue_mobile.study": {
        "errors", "spec", "data", "models", "training", "evaluate", "report", "bundle", "export",
        "methods", "pi_runtime",
    },
    "clue_mobile.cli": {
        "errors", "version", "cli", "spec", "data", "models", "training", "evaluate", "report", "bundle",
        "export", "study", "methods", "engines", "parity", "push", "pi_runtime", "exporters", "kernel_costs",
        "programs", "flat", "memory",
    },
}  # fmt: skip


def _files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _room(module: str) -> str:
    """`clue_mobile.bundle.golden` stands in `clue_mobile.bundle`; the other packages are one room each."""
    return ".".join(module.split(".")[:2]) if module.startswith("clue_mobile") else module.split(".")[0]


def _imports(path: Path) -> Iterator[str]:
    """Every module of ours that the file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from clue_mobile import data` is an import of clue_mobile.data
            whole = node.module in ("clue_mobile", "exporters", "pi_runtime")
            names = [f"{node.module}.{a.name}" for a in node.names] if whole else [node.module]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def _short(module: str) -> str:
    if module == "clue_mobile":
        return "version"  # of clue_mobile/__init__.py only the version is read
    return module.split(".")[1] if module.startswith("clue_mobile.") else module.split(".")[0]


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = _room(module)
    if room == "clue_mobile":
        allowed: set[str] = set()
    else:
        assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
        allowed = MAY_IMPORT[room] | {_short(room)}
    found = {_short(name) for name in _imports(path)}
    assert found <= allowed, f"{module} imports {sorted(found - allowed)}"


def test_the_arrows_have_no_cycle() -> None:
    rooms = {_short(room): allowed - {_short(room)} for room, allowed in MAY_IMPORT.items()}
    done: set[str] = {"version"}
    while len(done) <= len(rooms):
        ready = [room for room, needs in rooms.items() if room not in done and needs <= done]
        assert ready, f"these import each other in a circle: {sorted(set(rooms) - done)}"
        done.update(ready)


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_outgrows_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_contract_has_no_code() -> None:
    for path in (ROOT / "contract").rglob("*.py"):
        assert not path.read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("imports", [
    "clue_mobile, clue_mobile.cli, clue_mobile.models, clue_mobile.data",
    "clue_mobile.evaluate, clue_mobile.report",
    "exporters, exporters.targets",
    "pi_runtime, pi_runtime.cli",
])  # fmt: skip
def test_importing_is_light(imports: str) -> None:
    heavy = (
        "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "ai_edge_litert", "sklearn",
        "matplotlib", "timm",
    )  # fmt: skip
    script = f"import sys; import {imports}; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "pi_runtime").rglob("*.py")), ids=lambda p: p.name)
def test_the_device_runtime_needs_only_what_its_requirements_list(path: Path) -> None:
    """Inside functions too: what is imported late would be missed on the device only when it is used."""
    needed, optional = (
        {
            line.split(">")[0].replace("pillow", "PIL").replace("-", "_")
            for line in (ROOT / "pi_runtime" / name).read_text(encoding="utf-8").split()
        }
        for name in ("requirements.txt", "requirements-litert.txt")
    )
    listed = needed | (optional if path.name == "litert_engine.py" else set())
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    assert found <= listed | sys.stdlib_module_names | {"pi_runtime", "contract"}
