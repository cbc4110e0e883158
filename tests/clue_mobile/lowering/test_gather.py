"""Reading and writing by index: equal to autograd, and no gather or scatter left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import Apply, check, draw, examples, operators
from torch import Tensor, nn

INDEXING = {
    "index", "index_put", "index_select", "index_add", "gather", "scatter", "scatter_add", "embedding",
    "_unsafe_index", "_unsafe_index_put", "embedding_dense_backward", "_unsafe_masked_index_put_accumulate",
}  # fmt: skip


def assert_no_indexing(graph: Any) -> None:
    assert not INDEXING & set(operators(graph)), operators(graph)


@st.composite
def reads(draw: st.DrawFn) -> tuple[list[int], tuple[Any, ...]]:
    """A shape, and what x[...] is given: whole axes and indices that broadcast, some of them negative."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    wide = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    chosen = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)).filter(any))
    indices: list[Any] = []
    for size, taken in zip(shape, chosen, strict=True):
        if not taken:
            indices.append(slice(None))
            continue
        own = [n if draw(st.booleans()) else 1 for n in wide]
        count = int(np.prod(own))
        values = draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
        indices.append(torch.tensor(values).reshape(own))
    return shape, tuple(indices)


@examples(max_examples=15)
@given(case=reads())
def test_reading_at_constant_indices(case: tuple[list[int], tuple[Any, ...]]) -> None:
    shape, index = case
    assert_no_indexing(check(Apply(lambda x: x[index]), *shape))


@examples(max_examples=15)
@given(case=reads(), accumulate=st.booleans())
def test_writing_at_constant_indices(case: tuple[list[int], tuple[Any, ...]], accumulate: bool) -> None:
    shape, index = case
    given = [i for i in index if isinstance(i, Tensor)]
    places = torch.stack(torch.broadcast_tensors(*given)).flatten(1).T.tolist()
    sizes = [s for s, i in zip(shape, index, strict=True) if isinstance(i, Tensor)]
    distinct = {tuple(p % s for p, s in zip(place, sizes, strict=True)) for place in places}
    if len(distinct) < len(places) and not accumulate:
        return  # which one counts is not defined
    full = tuple(i if isinstance(i, Tensor) else None for i in index)

    def function(x: Tensor) -> Tensor:
        values = x[index] * 2
        if any(i is None for i in full):
            y = x * 3
            y[index] = values + (y[index] if accumulate else 0)
            return y
        return (x * 3).index_put(tuple(given), values, accumulate)

    if accumulate and any(i is None for i in full) and len(distinct) < len(places):
        return
    assert_no_indexing(check(Apply(function), *shape))


class RelativePositions(nn.Module):
    """The bias of a window's attention, as Swin and MaxViT add it."""

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", (apart[:, :, 0] * (2 * window - 1) + apart[:, :, 1]).flatten())
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Attention weights [N, heads, tokens, tokens] from scores of that shape."""
        tokens = self.window**2
        bias = self.table[self.index].view(tokens, tokens, -1).permute(2, 0, 1).contiguous()  # type: ignore[index]
        return F.softmax(x + bias.unsqueeze(0), -1)


def test_a_relative_position_bias_is_two_products_that_share_a_constant() -> None:
    graph = check(RelativePositions(5, 1), 1, 1, 25, 25)
    assert_no_indexing(graph)
    assert operators(graph)["mm"] == 2
    assert len({n for n in graph.graph.nodes if n.op == "get_attr"}) == 1


@examples(max_examples=8)
@given(
    rows=st.integers(1, 6),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    padding=st.booleans(),
    seed=st.integers(0, 9),
)
def test_embedding_of_constants(rows: int, shape: list[int], padding: bool, seed: int) -> None:
    chosen = torch.from_numpy(np.random.default_rng(seed).integers(0, rows, shape))

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(rows, 3, padding_idx=0 if padding else None)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.table(chosen)

    assert_no_indexing(check(Positions(), *shape, 3))


@pytest.mark.parametrize("padding", [None, 2])
def test_embedding_of_what_the_data_says(padding: int | None) -> None:
    class Palette(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 3, padding_idx=padding)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(torch.clamp(x.abs(), 0, 1).mul(4).round().long()) * x.unsqueeze(-1)

    assert_no_indexing(check(Palette(), 2, 7))


def test_positions_counted_up_are_the_table_itself() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table(torch.arange(4))

    graph = check(Positions(), 2, 4, 3)
    assert not {"mm", "constant_pad_nd"} & set(operators(graph))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0, 2])),
    "gather": lambda x: x.gather(1, torch.tensor([[[2, 0, 1, 1]], [[0, 1, 2, 2]]])),
    "gather of several": lambda x: x.gather(2, torch.tensor([[[3, 0, 1], [1, 1, 0]]])),
    "max": lambda x: x.max(1, keepdim=True)[0] + x.min(-1, keepdim=True)[0],
    "maxima of ties": lambda x: x.round().max(2)[0],
    "taken along": lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1),
    "index_add": lambda x: x.index_add(0, torch.tensor([1, 1]), x * x),
    "scatter_add": lambda x: x.scatter_add(1, torch.zeros(2, 2, 4, dtype=torch.int64), 2 * x[:, :2]),
    "scatter": lambda x: x.scatter(1, torch.ones(2, 1, 4, dtype=torch.int64), 2 * x[:, :1]),
    "flip": lambda x: x.flip(1) * x,
    "roll": lambda x: x.roll((1, -2), (1, 2)) * x.roll(5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    assert_no_indexing(check(Apply(FUNCTIONS[name]), 2, 3, 4))


def test_large_matrices_are_made_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clue_mobile.lowering.gather._LARGEST", 8)
    monkeypatch.setattr("clue_mobile.lowering.passes.constants._MAX_CONSTANT", 8)
    graph = check(Apply(lambda x: x[torch.tensor([4, 0, 4, 1])]), 5, 2)
    assert_no_indexing(graph)
    assert operators(graph)["eq"] == 1


def test_an_index_that_the_data_gives_is_left_for_the_runtime() -> None:
    table = draw(3, 2)
    graph = check(Apply(lambda x: table[x.abs().argmax(1)] * x[:, :2]), 4, 3)
    assert operators(graph)["index"] == 1
