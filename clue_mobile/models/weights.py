"""Reading and writing weights, with errors that say what does not fit. torch is imported on first use."""

from __future__ import annotations

import contextlib
import difflib
import os
import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clue_mobile.errors import ClueError

if TYPE_CHECKING:
    from torch import Tensor, nn

PICKLED = (".pt", ".pth")
SAFE = ".safetensors"
WRAPPERS = ("state_dict", "model")
LISTED = 5


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pt or .pth file, on the CPU, under the names they have in it.

    {"state_dict": ...} and {"model": ...} around them are removed. Pickled code is never run. Raises
    ClueError for a missing or damaged file, another suffix, and a file that holds anything but tensors.
    """
    _check(path)
    if path.suffix == SAFE:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None
    return _tensors(path, _unpickle(path))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a .safetensors file; {} for .pt and .pth, which have none. Needs no torch."""
    _check(path)
    if path.suffix != SAFE:
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the tensors of `path` into `module`, converting floating types to the module's.

    The "module." that DataParallel puts before every name is removed. Raises ClueError naming up to five
    missing, unexpected and misshapen tensors each, the first two with the closest name on the other side;
    `module` is then unchanged.
    """
    expected = module.state_dict()
    given = read_state_dict(path)
    if _wrapped(given) and not _wrapped(expected):
        given = {name.removeprefix("module."): tensor for name, tensor in given.items()}
    problems = [*_wrong_names(expected, given), *_wrong_tensors(expected, given)]
    if problems:
        raise ClueError(f"{path} does not fit {type(module).__name__}: {'; '.join(problems)}")
    # A file without the counters of batches keeps the module's: only batch norm without momentum reads them.
    module.load_state_dict({**expected, **given})


def save_weights(module: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the parameters and buffers of `module` to a .safetensors file that appears whole or not at all.

    Tied tensors are written once per name. Raises ClueError where the file cannot be written.
    """
    if path.suffix != SAFE:
        raise ClueError(
            f"weights are written as {SAFE}, not {path.suffix or 'a file without suffix'}: {path}"
        )
    import torch
    from safetensors.torch import save

    # safetensors takes neither shared storage nor other strides.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    write_atomic(path, save(tensors, {"format": "pt", **metadata}))


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one, complete.

    Raises ClueError where the file system refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise ClueError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _check(path: Path) -> None:
    if path.suffix not in (SAFE, *PICKLED):
        raise ClueError(f"weights must be a {SAFE}, .pt or .pth file, not {path}")
    if not path.is_file():
        raise ClueError(f"no weights file at {path}")


def _damaged(path: Path, error: Exception) -> ClueError:
    # torch adds paragraphs of advice to its first sentence.
    reason = str(error).partition(". ")[0] or type(error).__name__
    return ClueError(f"{path} is damaged or not a {path.suffix} file ({reason})")


def _unpickle(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is refused below in one sentence
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ClueError(
            f"{path} is damaged or holds pickled objects besides tensors, and loading those could run code; "
            "save model.state_dict() alone"
        ) from None
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, ... for a damaged file
        if "TorchScript" in str(error):
            raise ClueError(f"{path} is a TorchScript archive; save model.state_dict() instead") from None
        raise _damaged(path, error) from None


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    from torch import Tensor

    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ClueError(f"{path} holds no state dict but a {type(content).__name__} without tensors by name")
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        wrappers = " or ".join(f"{{{name!r}: ...}}" for name in WRAPPERS)
        raise ClueError(
            f"{path} holds entries that are no tensors: {_some(map(repr, others))}; "
            f"expected model.state_dict(), alone or in {wrappers}"
        )
    return {str(name): tensor.detach() for name, tensor in content.items()}


def _wrapped(tensors: Mapping[str, Tensor]) -> bool:
    return bool(tensors) and all(name.startswith("module.") for name in tensors)


def _wrong_names(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [
        name for name in expected if name not in given and name.rpartition(".")[2] != "num_batches_tracked"
    ]
    unexpected = [name for name in given if name not in expected]
    problems = []
    if missing:
        problems.append(f"missing {_some(_with_closest(missing, unexpected, 'the file'))}")
    if unexpected:
        problems.append(f"unexpected {_some(_with_closest(unexpected, missing, 'the model'))}")
    return problems


def _wrong_tensors(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    both = [(name, given[name], expected[name]) for name in expected if name in given]
    shapes = [
        f"{name!r} is {list(file.shape)} in the file and {list(model.shape)} in the model"
        for name, file, model in both
        if file.shape != model.shape
    ]
    # Copying integers into floats would succeed and give a quantised model's codes as its weights.
    kinds = [
        f"{name!r} is {file.dtype} in the file and {model.dtype} in the model"
        for name, file, model in both
        if file.is_floating_point() != model.is_floating_point()
    ]
    return [f"wrong {what}: {_some(found)}" for what, found in (("shape", shapes), ("type", kinds)) if found]


def _with_closest(names: list[str], others: list[str], side: str) -> list[str]:
    described = []
    for name in names[:LISTED]:
        close = difflib.get_close_matches(name, others, n=1)
        described.append(f"{name!r} (closest in {side}: {close[0]!r})" if close else repr(name))
    return described + names[LISTED:]


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more
