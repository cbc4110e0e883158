"""The bundle as export wrote it: opened, checked against its hashes and its schema, and given types."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pi_runtime import manifest, plan
from pi_runtime.errors import ClueError, unknown
from pi_runtime.files import sha256_file
from pi_runtime.references import check_references

_MAX_PATH = 255
RUNTIME = "runtime"  # what an app or a device is built from; who has built it may leave the folder out
_FLOAT32_MAX = (2 - 2**-23) * 2.0**127
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """An input or output of a program; `binds` is the name it is joined to, "" for results and metrics."""

    name: str
    role: str
    shape: Shape
    binds: str


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its path inside the folder, its SHA-256 in hex and its size in bytes."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Golden:
    """How to make a program's inputs and where its expected outputs are (contract/golden.md)."""

    file: str
    seed: int
    inputs: Mapping[str, tuple[Mapping[str, Any], ...]]
    strides: Mapping[str, int]
    tolerances: Mapping[str, float]


@dataclass(frozen=True)
class Program:
    """A pure function with fixed shapes; `files` by engine, `flops` and `peak_bytes` planned by export."""

    name: str
    batch: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    flops: int
    peak_bytes: int
    files: Mapping[str, FileEntry]
    golden: Golden


@dataclass(frozen=True)
class Value:
    """An array that the runtime holds while a request runs; `shape` is that of one row for role "cache".

    `storage` is "float32", or "bits" for zeros and ones that a checkpoint packs.
    """

    name: str
    role: str
    shape: Shape
    init: Mapping[str, Any]
    storage: str = "float32"

    @property
    def weights_key(self) -> str | None:
        """The array of the weights file that it starts from."""
        return self.init.get("weights")


@dataclass(frozen=True)
class Random:
    """A named random stream; `shape` is one sample's draw, the last three as its distribution needs."""

    name: str
    stream: int
    distribution: str
    shape: Shape
    low: float
    high: float
    classes: int


@dataclass(frozen=True)
class Collapse:
    """The retain-free signal: of `probes` images, `kept_at_least` percent must keep their class, and not more
    than `largest_share_at_most` percent may fall on one and the same."""

    probes: int
    kept_at_least: float
    largest_share_at_most: float


@dataclass(frozen=True)
class Bundle:
    """What the manifest says; `input_shape` is (C, H, W), `color` "RGB" or "L".

    Of the last six, four are None in a bundle without them: the limit for requests of samples, the file of
    the guard images, by how many points the accuracy on these may fall, the signal that stands in for them.
    `fit`: how an image of another size becomes one of the model's ("stretch" or "center-crop").
    `least_images`: fewer images of a class than this were seen to be too few, 0 where nothing is known.
    """

    root: Path
    name: str
    sha256: str
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    color: str
    method: str
    batch: int
    tuned_batch: int
    scalars: Mapping[str, float]
    forget_accuracy_at_most: float
    weights: FileEntry
    values: Mapping[str, Value]
    randoms: Mapping[str, Random]
    programs: Mapping[str, Program]
    plan: plan.Plan
    files: Mapping[str, FileEntry]
    notices: tuple[str, ...]
    sample_accuracy_at_most: float | None = None
    guard: str | None = None
    guard_drop_at_most: float | None = None
    collapse: Collapse | None = None
    fit: str = "stretch"
    least_images: int = 0

    @staticmethod
    def open(path: Path | str, verify: bool = True, trusted: Sequence[Path] = ()) -> Bundle:
        """Read and check a bundle folder.

        With `verify`, every file's SHA-256 is checked (seconds for large weights on a Pi); its presence and
        size always are. `trusted` are lists of public keys (`trust`): the bundle must be signed by a key of
        each. Raises ClueError naming the file or the place in the manifest that is wrong.
        """
        root = Path(path)
        raw, digest = manifest.read(root, trusted)
        bundle = _build(root, raw, digest)
        _check_files(bundle, verify)
        check_references(bundle, raw)
        return bundle

    def file(self, name: str) -> Path:
        """The path of a listed file, or of a folder of listed files.

        Raises ClueError when it is not listed, is or lies behind a link, or leads out of the folder.
        """
        if name not in self.files and not self._inside(name):
            self.fail(f"{name} is used but not in the list of files")
        parts = name.split("/")
        if len(name) > _MAX_PATH or any(part in ("", ".", "..") for part in parts):
            self.fail(f"{name[:_MAX_PATH]} is no plain path inside the bundle")
        path = self.root
        for part in parts:
            path /= part
            # Where a link leads can be changed after it was checked.
            if path.is_symlink():
                self.fail(f"{name}: {part} is a link, and a bundle has none")
        return path

    def sha256_of(self, name: str) -> str:
        """The listed hash of a file; of a folder, that of the lines "SHA256  PATH" of its files, sorted."""
        if name in self.files:
            return self.files[name].sha256
        lines = "".join(f"{entry.sha256}  {entry.file}\n" for entry in self._inside(name))
        return hashlib.sha256(lines.encode()).hexdigest()

    def _inside(self, folder: str) -> list[FileEntry]:
        return [entry for file, entry in sorted(self.files.items()) if file.startswith(f"{folder}/")]

    def fail(self, problem: str) -> NoReturn:
        """Raise the ClueError for a manifest that contradicts itself."""
        raise ClueError(f"bundle {self.root}: {problem}; export it again")

    def label(self, label: str | int) -> int:
        """The index of a class given by name, or by index as int or digits. Raises ClueError otherwise."""
        if isinstance(label, str):
            if label in self.classes:
                return self.classes.index(label)
            if not label.isdecimal():
                raise unknown("class", label, self.classes)
            label = int(label)
        if not 0 <= label < len(self.classes):
            last = len(self.classes) - 1
            raise ClueError(f"label {label} is out of range: {self.name} has classes 0 to {last}")
        return int(label)

    def merged_scalars(self, scalars: Mapping[str, float] | None) -> dict[str, float]:
        """The method's scalars, some replaced. Raises ClueError for an unknown name or no float32 value."""
        merged = dict(self.scalars)
        for name, value in (scalars or {}).items():
            if name not in merged:
                raise unknown("scalar", name, merged)
            if not abs(value) <= _FLOAT32_MAX:
                raise ClueError(f"scalar {name} is {value}: it must be finite in float32")
            merged[name] = float(value)
        return merged


def erased_mark(weights: Path) -> Path:
    """The empty file that stands in place of the bundle's weights once sealing has erased them."""
    return weights.with_name(weights.name + ".erased")


def _ports(raw: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(p["name"], p["role"], tuple(p["shape"]), p.get("binds", "")) for p in raw)


def _program(name: str, raw: Mapping[str, Any]) -> Program:
    golden = raw["golden"]
    return Program(
        name=name,
        batch=raw["batch"],
        inputs=_ports(raw["inputs"]),
        outputs=_ports(raw["outputs"]),
        flops=raw["flops"],
        peak_bytes=raw["peak_bytes"],
        files={engine: FileEntry(**entry) for engine, entry in raw["files"].items()},
        golden=Golden(
            golden["file"],
            golden["seed"],
            {port: tuple(draws) for port, draws in golden["inputs"].items()},
            {port: output["stride"] for port, output in golden["outputs"].items()},
            {port: float(output["tolerance"]) for port, output in golden["outputs"].items()},
        ),
    )


def _random(name: str, raw: Mapping[str, Any]) -> Random:
    low, high, classes = raw.get("low", 0.0), raw.get("high", 1.0), raw.get("classes", 0)
    return Random(name, raw["stream"], raw["distribution"], tuple(raw["shape"]), low, high, classes)


def _build(root: Path, raw: Mapping[str, Any], digest: str) -> Bundle:
    method, (channels, height, width) = raw["method"], raw["input"]["shape"]
    verify = method["verify"]
    return Bundle(
        root=root,
        name=raw["name"],
        sha256=digest,
        classes=tuple(raw["model"]["classes"]),
        input_shape=(channels, height, width),
        color=raw["input"]["color"],
        method=method["name"],
        batch=method["batch"],
        tuned_batch=method["tuned_batch"],
        scalars={name: float(value) for name, value in method["scalars"].items()},
        forget_accuracy_at_most=float(verify["forget_accuracy_at_most"]),
        weights=FileEntry(**raw["weights"]),
        values={
            name: Value(name, value["role"], tuple(value["shape"]), value["init"], value["storage"])
            for name, value in raw["values"].items()
        },
        randoms={name: _random(name, random) for name, random in raw["randoms"].items()},
        programs={name: _program(name, program) for name, program in raw["programs"].items()},
        plan=plan.parse(raw["plan"]),
        files=_files(root, raw["files"]),
        notices=tuple(raw["notices"]),
        sample_accuracy_at_most=verify.get("sample_accuracy_at_most"),
        guard=raw["guard"]["file"] if "guard" in raw else None,
        guard_drop_at_most=verify.get("guard_drop_at_most"),
        collapse=Collapse(**verify["collapse"]) if "collapse" in verify else None,
        fit=raw["preprocessing"].get("fit", "stretch"),
        least_images=method.get("least_images", 0),
    )


def _files(root: Path, rows: list[dict[str, Any]]) -> dict[str, FileEntry]:
    files = {row["file"]: FileEntry(**row) for row in rows}
    if len(files) != len(rows):
        raise ClueError(f"bundle {root}: manifest.json, files: a file is listed twice; export it again")
    return files


def _check_files(bundle: Bundle, verify: bool) -> None:
    delivered = (bundle.root / RUNTIME).exists()
    for entry in bundle.files.values():
        if entry.file.startswith(f"{RUNTIME}/") and not delivered:
            continue
        path = bundle.file(entry.file)
        if entry.file == bundle.weights.file and not path.exists() and erased_mark(path).exists():
            continue
        try:
            status = path.stat()
        except OSError as error:
            raise ClueError(
                f"bundle {bundle.root}: {entry.file} is missing; copy the bundle again"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise ClueError(f"bundle {bundle.root}: {entry.file} is no regular file; copy the bundle again")
        size = status.st_size
        if size != entry.bytes:
            raise ClueError(
                f"bundle {bundle.root}: {entry.file} has {size} bytes instead of {entry.bytes}; "
                "copy the bundle again"
            )
        if verify and sha256_file(path) != entry.sha256:
            raise ClueError(
                f"bundle {bundle.root}: {entry.file} was changed: its SHA-256 is not the manifest's; "
                "copy the bundle again"
            )
