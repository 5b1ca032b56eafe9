from functools import partial

import pytest

from mscaflax.data.inputs import SceneItem, scene_example
from mscaflax.data.workers import Failure, attempt, parallel_map
from mscaflax.errors import UserError


def halve(number):
    if number % 2:
        raise UserError(f"{number} is odd")
    return number // 2


def fail(number):
    raise ZeroDivisionError(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_with_failures_in_their_places(workers):
    # Processes import what they run, and this module is none that they could import.
    items = [SceneItem("nowhere" if n % 7 == 3 else "val", n) for n in range(30)]
    results = list(parallel_map(partial(scene_example, size=(2, 4)), items, workers))
    for n, result in enumerate(results):
        if n % 7 == 3:
            assert isinstance(result, Failure) and result.startswith("scenes has no split 'nowhere'")
        else:
            assert result["name"] == f"val_{n:05d}"
    assert len(results) == 30


def test_an_error_in_a_process_that_is_no_user_error_is_raised():
    with pytest.raises(TypeError, match=r"'int' has no len|of type 'int'"):
        list(parallel_map(len, ["a", 5], 2))


def test_a_user_error_becomes_a_failure_and_other_errors_pass():
    assert attempt(halve, 8) == 4
    failure = attempt(halve, 3)
    assert isinstance(failure, Failure) and failure == "3 is odd"
    with pytest.raises(ZeroDivisionError):
        list(parallel_map(fail, [1], 1))


def test_no_more_than_a_few_items_are_taken_ahead():
    taken = []

    def items():
        for number in range(10_000):
            taken.append(number)
            yield "a" * number

    results = parallel_map(len, items(), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    assert len(taken) < 200
