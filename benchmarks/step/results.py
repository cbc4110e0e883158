"""results/CELL.json: what was measured of each row, kept from run to run."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from work import HERE, LOSSES

RESULTS = HERE / "results"


def cell_name(model: str, batch: int, threads: int, loss: str) -> str:
    """The name of a cell's file, such as resnet20-b32-t1."""
    return f"{model}-b{batch}-t{threads}{'' if loss == LOSSES[0] else '-' + loss}"


def read(folder: Path, cell: str) -> dict[str, Any]:
    """The cell's content; one without rows where there is no file."""
    path = folder / f"{cell}.json"
    if not path.exists():
        return {"rows": {}}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """All cells there are, by name."""
    return {path.stem: read(folder, path.stem) for path in sorted(folder.glob("*.json"))}


def write(folder: Path, cell: str, content: dict[str, Any]) -> None:
    """Replace the cell's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cell}.json"
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu, flags = platform.machine(), ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        if key.strip() in ("flags", "Features"):
            flags = f" {value} "
    known = ("avx2", "fma", "avx512f", "avx512_vnni", "amx_tile", "asimd", "asimddp", "fphp", "sve")
    return {
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "instructions": [name for name in known if f" {name} " in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
