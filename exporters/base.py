"""What an exporter is: a module with a file suffix, lowering overrides, and a function from a traced program
to bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from clue_mobile.lowering import Table
    from clue_mobile.programs import Traced


class Exporter(Protocol):
    """The interface of the modules in this folder."""

    SUFFIX: str
    OVERRIDES: Table

    def convert(self, traced: Traced) -> bytes:
        """The program as the runtime's file. It holds no trained weights: state comes in as inputs."""

    def versions(self) -> dict[str, str]:
        """Package names and versions that go on record."""


def tensor_names(traced: Traced) -> tuple[list[str], list[str]]:
    """Names of the file's inputs and outputs: the ports' names."""
    return [p.name for p in traced.program.inputs], [p.name for p in traced.program.outputs]


def named_inputs(traced: Traced, tensors: Any) -> dict[str, Any]:
    """Arguments in port order as the dictionary a runtime takes."""
    return dict(zip(tensor_names(traced)[0], tensors, strict=True))
