"""The wiring of a lattice, and the errors of one that cannot be wired."""

import pytest
import torch

from cubeopt.errors import ConfigError
from cubeopt.lattice.geometry import geometry, positions
from cubeopt.trial import CubeShape


def shape(**values):
    return CubeShape(**{"lattice_size": (4, 4, 4), "distant_links": 4, **values})


def heights(cells, size):
    return positions(size)[cells, 2].tolist()


def test_the_faces_are_the_cells_with_the_lowest_and_the_highest_z():
    wiring = geometry(shape())
    assert heights(wiring.written, (4, 4, 4)) == [0] * 16
    assert heights(wiring.read, (4, 4, 4)) == [3] * 16


def test_one_face_may_be_written_and_read():
    wiring = geometry(shape(placement="same_face"))
    assert heights(wiring.written, (4, 4, 4)) == heights(wiring.read, (4, 4, 4)) == [0] * 16


@pytest.mark.parametrize("size", [(4, 4, 4), (3, 5, 6), (8, 8, 8)])
def test_spread_numbers_stand_in_every_column_once_and_at_every_height(size):
    wiring = geometry(shape(lattice_size=size, placement="spread"))
    for cells in (wiring.written, wiring.read):
        columns = [tuple(place) for place in positions(size)[cells, :2].tolist()]
        assert columns == [(x, y) for x in range(size[0]) for y in range(size[1])]
        assert set(heights(cells, size)) == set(range(size[2]))
    assert not set(wiring.written.tolist()) & set(wiring.read.tolist())


def test_the_tiers_split_all_other_cells_by_distance():
    wiring = geometry(shape(local_radius=1.0, functional_radius=2.0))
    where = positions((4, 4, 4)).double()
    for cell in range(64):
        distance = (where - where[cell]).norm(dim=1)
        near, far = (
            set(((distance > low) & (distance <= high)).nonzero()[:, 0].tolist())
            for low, high in ((0.0, 1.0), (1.0, 2.0))
        )
        heard = {
            tier: getattr(wiring, tier).speaker[getattr(wiring, tier).listener == cell].tolist()
            for tier in ("local", "functional", "distant")
        }
        assert heard["local"] == sorted(near)
        assert heard["functional"] == sorted(far)
        assert bool((distance[heard["distant"]] > 2.0).all())
        assert len(set(heard["distant"])) == 4
    for tier in (wiring.local, wiring.functional, wiring.distant):
        assert tier.listener.equal(tier.listener.sort().values)


def test_the_wiring_is_the_same_each_time():
    assert torch.equal(geometry(shape()).distant.speaker, geometry(shape()).distant.speaker)


def test_a_functional_tier_within_26_neighbours_of_the_users_cube():
    wiring = geometry(CubeShape(lattice_size=(8, 8, 8)))
    assert int(torch.bincount(wiring.functional.listener).max()) == 26


@pytest.mark.parametrize(
    ("links", "local", "functional", "distant"),
    [(60, 6, 26, 21), (60 * 3, 18, 104, 63), (20, 6, 12, 7), (1, 6, 12, 1)],
)
def test_shares_of_the_links_become_whole_shells_nearest_to_them(links, local, functional, distant):
    # 6 cells at a distance of 1, 12 at root 2, 8 at root 3, 6 at 2, 24 at root 5, 24 at root 6, ...
    wiring = geometry(CubeShape(lattice_size=(9, 9, 9), tiers="share", links=links))
    middle = 4 * 81 + 4 * 9 + 4
    found = [
        int((getattr(wiring, tier).listener == middle).sum())
        for tier in ("local", "functional", "distant")
    ]
    assert found == [local, functional, distant]


def test_an_expert_that_is_left_out_has_no_links():
    wiring = geometry(shape(experts=("local", "distant"), lattice_steps=5))
    assert [len(tier) > 0 for tier in (wiring.local, wiring.functional, wiring.distant)] == [
        True,
        False,
        True,
    ]


def test_a_large_lattice_is_wired_without_a_matrix_of_all_pairs():
    wiring = geometry(CubeShape(lattice_size=(20, 20, 20), lattice_steps=12))
    assert len(wiring.distant) == 8 * 8000
    assert int(torch.bincount(wiring.functional.listener).max()) == 26


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"local_radius": 0.5}, "set local_radius to 1.0 or more"),
        ({"functional_radius": 1.2}, "a functional_radius of 2 would do"),
        (
            {"distant_links": 40},
            "only 34 cells beyond radius 2; a functional_radius of 1.42 would do",
        ),
        ({"distant_links": 60}, "set distant_links to 34 or less"),
        ({"functional_radius": 9.0, "distant_links": 63}, "take a larger lattice_size or a lower"),
        ({"tiers": "share", "links": 600}, "only 0 cells beyond radius 4; take a larger"),
        ({"tiers": "share", "links": 120}, "some cell has only .*; lower links"),
        ({"experts": ("local",), "lattice_steps": 1}, "it takes 3 steps; set lattice_steps to 3"),
        ({"lattice_size": (2, 2, 40), "lattice_steps": 1}, "set lattice_steps to"),
    ],
)
def test_a_lattice_that_cannot_work_is_one_clear_error(values, message):
    with pytest.raises(ConfigError, match=message):
        geometry(shape(**values))


def test_the_radius_named_in_the_error_would_do():
    with pytest.raises(ConfigError) as error:
        geometry(shape(distant_links=40))
    radius = float(str(error.value).rpartition("functional_radius of ")[2].split()[0])
    geometry(shape(distant_links=40, functional_radius=radius))


def test_the_number_of_steps_named_in_the_error_is_enough_and_one_less_is_not():
    values = {"lattice_size": (2, 2, 40), "distant_links": 1}
    with pytest.raises(ConfigError) as error:
        geometry(shape(**values, lattice_steps=1))
    needed = int(str(error.value).rpartition("set lattice_steps to ")[2].split()[0])
    geometry(shape(**values, lattice_steps=needed))
    with pytest.raises(ConfigError):
        geometry(shape(**values, lattice_steps=needed - 1))
