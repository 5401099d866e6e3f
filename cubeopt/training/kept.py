"""Values at hand within a limit of bytes: those asked for last, or those of a walk's beginning."""

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """Values at hand, the least recently used forgotten where their sizes exceed *limit*."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._held: OrderedDict[Hashable, tuple[_Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable) -> _Value | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: Hashable, value: _Value, size: int) -> None:
        """Keep *value*, the newest, in any case."""
        self.drop(key)
        self._held[key] = value, size
        self._size += size
        while self._size > self._limit and len(self._held) > 1:
            self.drop(next(iter(self._held)))

    def drop(self, key: Hashable) -> None:
        """Forget the value of *key*, if there is one."""
        if key in self._held:
            self._size -= self._held.pop(key)[1]


class Earliest(Generic[_Value]):
    """Values by walk and place, the earliest places kept where the sizes exceed *limit*.

    A walk goes through its places in their order, time and again, and mostly not to its end.
    Forgetting what was used longest ago would forget all of it before it comes again. So a walk
    gives up its latest places; the walk that was longest not gone gives up its own first.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._walks: OrderedDict[Hashable, _Walk[_Value]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(walk.held) for walk in self._walks.values())

    def get(self, walk: Hashable, place: tuple[int, ...]) -> _Value | None:
        if walk not in self._walks:
            return None
        self._walks.move_to_end(walk)
        found = self._walks[walk].held.get(place)
        return None if found is None else found[0]

    def put(self, walk: Hashable, place: tuple[int, ...], value: _Value, size: int) -> bool:
        """Keep *value* in the room of what matters less; False where that is not enough."""
        own = self._walks.setdefault(walk, _Walk())
        self._walks.move_to_end(walk)
        while self._size + size > self._limit:
            oldest = next(iter(self._walks.values()))
            if oldest is own and not own.ends_after(place):
                return False
            self._size -= oldest.drop_latest()
            if not oldest.held and oldest is not own:
                self._walks.popitem(last=False)
        own.add(place, value, size)
        self._size += size
        return True


class _Walk(Generic[_Value]):
    """The values of one walk by place."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, ...], tuple[_Value, int]] = {}
        self._latest: list[tuple[int, ...]] = []  # a heap of the places, each number negated

    def ends_after(self, place: tuple[int, ...]) -> bool:
        return bool(self._latest) and self._latest[0] < _negated(place)

    def add(self, place: tuple[int, ...], value: _Value, size: int) -> None:
        assert place not in self.held
        heapq.heappush(self._latest, _negated(place))
        self.held[place] = value, size

    def drop_latest(self) -> int:
        """Forget the value of the latest place; its size."""
        return self.held.pop(_negated(heapq.heappop(self._latest)))[1]


def _negated(place: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-number for number in place)
