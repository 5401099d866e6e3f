"""What is kept, and what goes first when room is short."""

from cubeopt.training.kept import Earliest, Recent


def test_the_least_recently_used_goes_first_and_the_newest_stays_in_any_case():
    kept = Recent(10)
    for key in "abc":
        kept.put(key, key.upper(), 4)
    assert [kept.get(key) for key in "abc"] == [None, "B", "C"]
    assert kept.get("b") == "B"
    kept.put("d", "D", 4)
    assert [kept.get(key) for key in "bcd"] == ["B", None, "D"]
    kept.put("e", "E", 99)
    assert len(kept) == 1
    assert kept.get("e") == "E"
    kept.drop("e")
    kept.drop("e")
    kept.put("f", "F", 10)
    kept.put("f", "G", 10)
    assert kept.get("f") == "G"


def test_a_walk_that_comes_again_finds_its_beginning():
    kept = Earliest(3)
    for _ in range(2):
        for place in range(5):
            if kept.get("walk", (place,)) is None:
                assert kept.put("walk", (place,), place, 1) == (place < 3)
    assert [kept.get("walk", (place,)) for place in range(5)] == [0, 1, 2, None, None]


def test_an_earlier_place_takes_the_room_of_later_ones():
    kept = Earliest(4)
    for place in ((1, 0), (1, 1), (0, 7), (0, 8)):
        assert kept.put("walk", place, place, 1)
    assert kept.put("walk", (0, 9), (0, 9), 2)
    assert [place for place in ((0, 7), (0, 8), (0, 9)) if kept.get("walk", place)] == [
        (0, 7),
        (0, 8),
        (0, 9),
    ]
    assert len(kept) == 3
    assert not kept.put("walk", (0, 10), None, 1)


def test_a_walk_that_is_over_makes_room_for_the_one_that_is_gone_now():
    kept = Earliest(4)
    for place in range(3):
        kept.put("old", (place,), place, 1)
    kept.put("new", (0,), 0, 1)
    assert kept.get("old", (0,)) == 0  # gone again: now "new" is the one longest left alone
    kept.put("old", (3,), 3, 1)
    assert [kept.get("old", (place,)) for place in range(4)] == [0, 1, 2, 3]
    assert kept.get("new", (0,)) is None
    for place in range(5):
        assert kept.put("next", (place,), place, 1) == (place < 4)
    assert [kept.get("next", (place,)) for place in range(4)] == [0, 1, 2, 3]
    assert len(kept) == 4


def test_what_is_larger_than_all_room_is_not_kept():
    kept = Earliest(4)
    assert not kept.put("walk", (0,), None, 5)
    assert kept.put("walk", (0,), "fits", 4)
    assert kept.get("walk", (0,)) == "fits"
    assert kept.get("another", (0,)) is None
