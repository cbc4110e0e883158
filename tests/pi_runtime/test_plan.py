from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from pi_runtime import plan, rng
from pi_runtime.errors import ClueError

SCALARS = {"epochs": 3.0, "two": 2.0, "none": 0.0}


def unroll(nodes: list[dict[str, Any]], n: int, start: int = 0, seed: int = 9) -> list[plan.Operation]:
    return list(plan.operations(plan.parse(nodes), n, SCALARS, seed, start))


def shown(operation: plan.Operation) -> tuple[object, ...]:
    place = operation.place
    positions = None if place.positions is None else place.positions.tolist()
    extra = (operation.due, operation.leave_to) if isinstance(operation, plan.Stop) else ()
    head = (operation.number, type(operation).__name__, operation.node)
    return (*head, place.phase, place.epoch, place.repeat, positions, place.augment, *extra)


def batches(size: int, *body: dict[str, Any], **options: str) -> dict[str, Any]:
    return {"loop": "batches", "size": size, "body": list(body), **options}


def epochs(count: float | str, *body: Any) -> dict[str, Any]:
    return {"loop": "epochs", "count": count, "body": list(body)}


def repeat(count: float | str, *body: dict[str, Any]) -> dict[str, Any]:
    return {"loop": "repeat", "count": count, "body": list(body)}


RUN = {"run": "step"}


def stop(every: float | str) -> dict[str, Any]:
    return {"stop": {"program": "predict", "every": every, "samples": 5, "accuracy_at_most": 10}}


def rows(operations: list[plan.Operation]) -> list[list[int]]:
    return [o.place.positions.tolist() for o in operations if o.place.positions is not None]


def test_a_short_batch_is_filled_from_the_start_of_the_order() -> None:
    assert rows(unroll([batches(4, RUN, order="stored")], 6)) == [[0, 1, 2, 3], [4, 5, 0, 1]]


def test_fewer_samples_than_a_batch_go_round_several_times() -> None:
    assert rows(unroll([batches(7, RUN, order="stored")], 3)) == [[0, 1, 2, 0, 1, 2, 0]]


def test_shuffled_is_the_default_and_the_same_for_all_loops_of_an_epoch() -> None:
    found = rows(unroll([epochs(2, batches(4, RUN), batches(2, RUN, order="shuffled"))], 8))
    for epoch in (0, 1):
        order = rng.permutation(9, epoch, 8).tolist()
        part = found[6 * epoch : 6 * epoch + 6]
        assert list(itertools.chain(*part[:2])) == order
        assert list(itertools.chain(*part[2:])) == order


def test_an_inner_loop_cuts_the_filled_outer_batch() -> None:
    found = rows(unroll([batches(6, batches(3, RUN), RUN, order="stored")], 8))
    assert found == [[0, 1, 2], [3, 4, 5], [0, 1, 2, 3, 4, 5], [6, 7, 0], [1, 2, 3], [6, 7, 0, 1, 2, 3]]


def test_augment_holds_for_inner_loops_and_ends_with_the_outermost() -> None:
    found = unroll([batches(4, batches(2, RUN), augment="crop_flip"), batches(4, RUN)], 4)
    assert [o.place.augment for o in found] == [True, True, False]


def test_phases_epochs_and_repeats_are_told() -> None:
    nodes = [RUN, {"phase": "a", "body": [epochs(2, repeat("two", repeat(3, RUN)), RUN)]}]
    found = [(o.place.phase, o.place.epoch, o.place.repeat) for o in unroll(nodes, 1)]
    epoch = [[("a", e, r) for r in range(6)] + [("a", e, 0)] for e in (0, 1)]
    assert found == [("", 0, 0), *epoch[0], *epoch[1]]


def test_a_stop_counts_within_its_epoch_and_leaves_the_outermost_epochs_loop() -> None:
    nodes = [RUN, epochs(2, batches(2, RUN, stop(2))), RUN]
    found = [o for o in unroll(nodes, 6) if isinstance(o, plan.Stop)]
    assert [o.due for o in found] == [False, True, False, False, True, False]
    assert {o.leave_to for o in found} == {13}
    assert unroll(nodes, 6, start=13)[0].number == 13


@pytest.mark.parametrize("every", [0, -1, "none"])
def test_a_stop_of_every_nothing_is_never_due(every: float | str) -> None:
    found = unroll([epochs(3, RUN, stop(every))], 1)
    assert not any(o.due for o in found if isinstance(o, plan.Stop))


@pytest.mark.parametrize(
    ("count", "times"), [(1.49, 1), (1.5, 2), (2.5, 3), (-3, 0), ("two", 2), ("none", 0)]
)
def test_counts_are_rounded_to_the_nearest_halves_up(count: float | str, times: int) -> None:
    assert len(unroll([repeat(count, RUN)], 1)) == times


@pytest.mark.parametrize(("count", "message"), [
    ("epoch", "unknown scalar 'epoch': did you mean 'epochs'"),
    (float("inf"), "must be finite"), (float("nan"), "must be finite"),
])  # fmt: skip
def test_impossible_counts_are_refused(count: float | str, message: str) -> None:
    with pytest.raises(ClueError, match=message):
        unroll([repeat(count, RUN)], 1)


def test_nothing_is_held_for_loops_that_never_end() -> None:
    nodes = plan.parse([epochs(1e9, batches(2, RUN, RUN))])
    first = next(plan.operations(nodes, 10, SCALARS, 1))
    deep = next(plan.operations(nodes, 10, SCALARS, 1, start=5 * 10**9 + 3))
    assert (first.number, deep.number) == (0, 5 * 10**9 + 3)
    assert deep.place.epoch == 5 * 10**8


@pytest.mark.parametrize("n", [1, 3, 4, 8, 19])
def test_the_toy_plan_goes_on_from_every_cursor(n: int) -> None:
    nodes = plan.parse(toy.PLAN)
    whole = [shown(o) for o in plan.operations(nodes, n, toy.SCALARS, 3)]
    assert [o[0] for o in whole] == list(range(plan.total(nodes, n, toy.SCALARS)))
    for start in range(len(whole) + 1):
        assert [shown(o) for o in plan.operations(nodes, n, toy.SCALARS, 3, start)] == whole[start:]


def _bodies(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    body = st.lists(children, min_size=1, max_size=3)
    count = st.integers(0, 3)
    return st.one_of(
        st.builds(lambda b: {"phase": "p", "body": b}, body),
        st.builds(lambda b, c: repeat(c, *b), body, count),
        st.builds(lambda b, c: epochs(c, *b), body, count),
    )


LEAVES = st.one_of(
    st.just(RUN),
    st.just({"reset": ["v"]}),
    st.builds(
        lambda size, order: batches(size, batches(1, RUN), RUN, order=order),
        st.integers(1, 3),
        st.sampled_from(["stored", "shuffled"]),
    ),
)


@given(
    st.lists(st.recursive(LEAVES, _bodies, max_leaves=6), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(0, 200),
)
def test_any_plan_is_a_numbered_sequence_that_can_be_entered_anywhere(
    nodes: list[dict[str, Any]], n: int, start: int
) -> None:
    whole = [shown(o) for o in unroll(nodes, n)]
    assert [o[0] for o in whole] == list(range(plan.total(plan.parse(nodes), n, SCALARS)))
    assert [shown(o) for o in unroll(nodes, n, start)] == whole[start:]


def test_positions_of_a_batch_do_not_change_under_the_hands_of_the_runner() -> None:
    found = unroll([batches(2, batches(2, RUN), RUN)], 2)
    assert found[0].place.positions is not None
    found[0].place.positions[:] = 7
    assert np.all(found[1].place.positions != 7)


def test_epoch_ends_are_those_of_the_outermost_loops() -> None:
    run = plan.RunNode("a", {})
    inner = plan.Loop("epochs", 2, (run,))
    nodes = (
        run,
        plan.Phase("p", (plan.Loop("epochs", "epochs", (plan.Batches(4, None, None, (run,)), inner)),)),
        plan.Loop("epochs", 0, (run,)),
        plan.Loop("repeat", 2, (plan.Loop("epochs", 1, (run,)), run)),
    )

    def ends(scalars: dict[str, float]) -> dict[int, int]:
        found = {i: plan.epoch_end(nodes, 10, scalars, i) for i in range(30)}
        return {i: end for i, end in found.items() if end is not None}

    # an epoch: 3 batches of 10 samples and 2 runs; after 3 of them a repeat of an epoch and a run
    assert ends({"epochs": 3}) == {6: 16, 11: 16, 16: 16, 17: 17, 19: 19}
    assert plan.total(nodes, 10, {"epochs": 3}) == 20
    assert ends({"epochs": 0}) == {2: 2, 4: 4}
