import pytest

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
    # int.__floordiv__ and the like would do; the functions must be importable by the processes.
    results = list(parallel_map(len, ["a" * n for n in range(50)], workers))
    assert results == list(range(50))


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
