import numpy as np

from inference.selection.room import TWIN, Room
from tests.inference.selection.pools import make_pool


def test_a_taken_tile_is_no_longer_free() -> None:
    room = Room(make_pool(3), cap=3)
    room.take(1)
    assert room.open().tolist() == [True, False, True]
    assert room.taken == [1]


def test_no_patient_gives_more_than_the_cap_while_others_have_tiles() -> None:
    room = Room(make_pool(5, patients=["P0", "P0", "P0", "P1", "P1"]), cap=1)
    room.take(0)
    assert room.open().tolist() == [False, False, False, True, True]
    room.take(3)
    assert room.open().tolist() == [False, True, True, False, True]  # nobody is left below it: it doubles


def test_the_cap_gives_way_among_what_is_wanted() -> None:
    room = Room(make_pool(4, patients=["P0", "P0", "P1", "P1"]), cap=1)
    room.take(0)
    assert room.open(np.array([True, True, False, False])).tolist() == [False, True, False, False]


def test_twins_of_what_is_taken_wait_until_nothing_else_is_left() -> None:
    nearly = np.sqrt(1 - (TWIN + 0.005) ** 2)
    room = Room(make_pool(3, embeddings=[[1, 0], [TWIN + 0.005, nearly], [0, 1]]), cap=9)
    room.take(0)
    assert room.open().tolist() == [False, False, True]
    room.take(2)
    assert room.open().tolist() == [False, True, False]


def test_tiles_of_which_nothing_is_known_are_no_twins() -> None:
    room = Room(make_pool(3, embeddings=np.zeros((3, 2))), cap=9)
    room.take(0)
    assert room.open().tolist() == [False, True, True]


def test_a_tile_taken_free_of_the_rules_counts_for_none() -> None:
    room = Room(make_pool(3, patients=["P0", "P0", "P1"], embeddings=[[1, 0]] * 3), cap=1)
    room.take(0, free_of_rules=True)
    assert room.open().tolist() == [False, True, True]


def test_the_best_of_what_is_wanted_is_taken_until_none_is_left() -> None:
    room, wanted = Room(make_pool(4), cap=9), np.array([True, True, False, True])
    values = np.array([1.0, 3.0, 9.0, 2.0])
    assert [room.take_best(values, wanted) for _ in range(4)] == [1, 3, 0, None]
    assert room.free.tolist() == [False, False, True, False]
