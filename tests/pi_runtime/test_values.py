from __future__ import annotations

import numpy as np
import pytest
import toy

from pi_runtime import Bundle, rng
from pi_runtime.values import Values, swapped_values


@pytest.fixture
def values(opened_bundle: Bundle) -> Values:
    return Values(opened_bundle, {"params": toy.params(), "frozen": toy.FROZEN}, n=5, seed=3)


def test_only_values_that_a_program_reads_and_writes_have_two_arrays(
    opened_bundle: Bundle, values: Values
) -> None:
    assert swapped_values(opened_bundle) == {"params", "velocity"}
    for name in opened_bundle.values:
        shared = values.target(name) is values.current(name)
        assert shared == (name not in ("params", "velocity"))


def test_first_contents(values: Values) -> None:
    assert np.array_equal(values.current("params"), toy.params())
    assert np.array_equal(values.current("origin"), toy.params())
    assert np.array_equal(values.current("importance"), toy.IMPORTANCE)
    assert np.array_equal(values.current("kick"), rng.normal(3, 19, 0, [0], (toy.SIZE,))[0])
    assert not values.current("velocity").any()
    assert values.current("teach").shape == (5, toy.K)


def test_a_reset_copies_what_the_other_value_is_by_then(values: Values) -> None:
    values.target("params")[...] = 7
    values.written("params")
    assert np.array_equal(values.current("origin"), toy.params())
    values.reset("origin", epoch=0, repeat=0)
    assert np.all(values.current("origin") == 7)
    values.reset("params", epoch=0, repeat=0)
    assert np.array_equal(values.current("params"), toy.params())
    assert np.all(values.current("origin") == 7)


def test_a_reset_draws_for_its_epoch_and_repeat(values: Values) -> None:
    values.reset("kick", epoch=2, repeat=3)
    drawn = rng.normal(3, 19, 2, [0], (toy.SIZE,), block_offset=3 * 13)  # 51 numbers are 13 blocks
    assert np.array_equal(values.current("kick"), drawn[0])


@pytest.mark.parametrize("first", [0, 1, 50])
def test_leading_zeros_are_found(values: Values, first: int) -> None:
    array = values.current("velocity")
    array[:] = -0.0
    assert values.begins_with_zeros("velocity", toy.SIZE)
    for content in (1e-45, np.nan):
        array[first] = content
        assert not values.begins_with_zeros("velocity", first + 1)
        assert first == 0 or values.begins_with_zeros("velocity", first)


def test_the_state_goes_under_its_keys(values: Values) -> None:
    values.target("params")[...] = 7
    values.written("params")
    state = values.state()
    assert set(state) == {"params", "frozen"}
    assert np.all(state["params"] == 7)
