"""What an exporter is: a module that turns the traced programs of a bundle into a runtime's files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from clue_mobile.flat import FlatModel
    from clue_mobile.lowering import Table
    from clue_mobile.memory.rules import Rules
    from clue_mobile.plan import Recipe
    from clue_mobile.programs import Traced

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """What the programs were made from, for an exporter that needs more than they say."""

    model: FlatModel
    recipe: Recipe


@dataclass(frozen=True)
class Converted:
    """A runtime's files.

    files: content by path below programs/RUNTIME/. programs: for each program, the path of the file that has
    it; several programs may share a file, and a path may be a folder of files. reports: for each program,
    what the conversion is worth telling, such as the share of FLOPs that a delegate runs; it goes into the
    manifest. notes: sentences for the user.
    """

    files: Mapping[str, bytes]
    programs: Mapping[str, str]
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Exporter(Protocol):
    """The interface of the modules in this folder.

    OVERRIDES: entries of the lowering's table in the form that suits the runtime. PASSES: names of the graph
    passes that do. FLOAT16: whether it takes programs that compute in float16. MEMORY: how the runtime treats
    memory.
    """

    OVERRIDES: Table
    PASSES: Collection[str]
    FLOAT16: bool
    MEMORY: Rules

    def convert(self, programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
        """All programs of a bundle as the runtime's files; `tell` is given the name of each program first.

        A program inside its file has the program's name, its inputs and outputs the names of the ports. The
        files hold no trained weights: state comes in as inputs. Raises ClueError naming the program and the
        operator that the runtime lacks.
        """

    def versions(self) -> dict[str, str]:
        """Package names and versions that go on record."""


def tensor_names(traced: Traced) -> tuple[list[str], list[str]]:
    """Names of the file's inputs and outputs: the ports' names."""
    return [p.name for p in traced.program.inputs], [p.name for p in traced.program.outputs]
