import threading

import pytest

from inference.services.reading import THREADS, done_ahead


def test_what_is_done_comes_in_order():
    assert list(done_ahead(str, range(20))) == [str(number) for number in range(20)]
    assert list(done_ahead(str, [])) == []


def test_it_is_done_in_other_threads():
    assert threading.get_ident() not in list(done_ahead(lambda item: threading.get_ident(), range(5)))


def test_no_more_is_begun_than_so_many_ahead():
    begun = []
    coming = done_ahead(begun.append, range(50))
    for taken in range(1, 10):
        next(coming)
        assert len(begun) <= taken + THREADS + 1
    coming.close()


def test_a_failure_comes_in_its_turn_and_ends_it():
    def fail_at_three(item):
        if item == 3:
            raise ValueError("three")
        return item

    coming = done_ahead(fail_at_three, range(50))
    assert [next(coming) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(coming)
    assert list(coming) == []


def test_stopped_half_way_it_leaves_no_thread():
    before = threading.active_count()
    begun = []
    for _ in done_ahead(begun.append, range(50)):
        break
    assert len(begun) <= 1 + THREADS + 1
    assert threading.active_count() == before
