"""Pauses of a worker that finds nothing."""

from cubeopt.service.rest import Rest


def test_pauses_grow_to_a_second_and_begin_anew() -> None:
    for _ in range(20):
        rest = Rest()
        pauses = [rest.seconds() for _ in range(8)]
        assert 0.22 < pauses[0] < 0.38
        assert all(0.74 < each < 1.26 for each in pauses[4:])
        assert max(pauses) < 1.26
        rest.over()
        assert rest.seconds() < 0.38


def test_two_workers_do_not_look_at_the_same_time() -> None:
    assert Rest().seconds() != Rest().seconds()
