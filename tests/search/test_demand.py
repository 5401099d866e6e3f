"""How many trials wait: by who might ask before the next look."""

from cubeopt.db.outcomes import Standing
from cubeopt.search.demand import Demand


def standing(waiting: int = 0, first: int = 0, most_held: int = 0, idle: int = 0) -> Standing:
    return Standing(frozenset(range(first, first + waiting)), frozenset(), most_held, idle)


def test_a_few_wait_where_nobody_asks() -> None:
    demand = Demand()
    assert [demand.ahead(standing(4)) for _ in range(3)] == [4, 4, 4]


def test_a_pack_may_end_at_once_and_the_idle_want_one_each() -> None:
    assert Demand().ahead(standing(most_held=32)) == 32
    assert Demand().ahead(standing(idle=64, most_held=8)) == 64


def test_twice_what_was_claimed_waits_and_it_is_forgotten_slowly() -> None:
    demand = Demand()
    demand.ahead(standing())
    demand.offer(range(10))
    assert demand.ahead(standing(waiting=2, first=8)) == 16
    assert [demand.ahead(standing(waiting=2, first=8)) for _ in range(3)] == [13, 10, 8]
