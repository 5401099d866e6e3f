"""The wiring of a lattice, and the errors of one that cannot be wired."""

import pytest
import torch

from cubeopt.errors import ConfigError
from cubeopt.lattice.geometry import geometry, positions
from cubeopt.trial import CubeShape


def shape(**values):
    return CubeShape(**{"lattice_size": (4, 4, 4), "distant_links": 4, **values})


def test_the_faces_are_the_cells_with_the_lowest_and_the_highest_z():
    wiring, where = geometry(shape()), positions((4, 4, 4))
    assert where[wiring.input_face, 2].tolist() == [0] * 16
    assert where[wiring.output_face, 2].tolist() == [3] * 16


def test_the_tiers_split_all_other_cells_by_distance():
    wiring = geometry(shape(local_radius=1.0, functional_radius=2.0))
    where = positions((4, 4, 4)).double()
    for cell in (0, 21, 63):
        distance = (where - where[cell]).norm(dim=1)
        functional = wiring.functional[cell]
        assert torch.equal(functional, (distance > 1.0) & (distance <= 2.0))
        assert bool((distance[wiring.distant[cell]] > 2.0).all())
        assert len(set(wiring.distant[cell].tolist())) == 4
    assert sorted(wiring.local_offsets) == sorted(
        [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    )


def test_the_wiring_is_the_same_each_time():
    assert torch.equal(geometry(shape()).distant, geometry(shape()).distant)


def test_a_functional_tier_within_26_neighbours_of_the_users_cube():
    wiring = geometry(CubeShape(lattice_size=(8, 8, 8)))
    assert int(wiring.functional.sum(1).max()) == 26


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"local_radius": 0.5}, "set local_radius to 1.0 or more"),
        ({"functional_radius": 1.2}, "a functional_radius of 2.0 would do"),
        ({"distant_links": 60}, "lower distant_links or functional_radius"),
        ({"functional_radius": 9.0}, "only 0 cells beyond functional_radius"),
        ({"lattice_size": (2, 2, 40), "lattice_steps": 1}, "set lattice_steps to"),
    ],
)
def test_a_lattice_that_cannot_work_is_one_clear_error(values, message):
    with pytest.raises(ConfigError, match=message):
        geometry(shape(**values))


def test_the_number_of_steps_named_in_the_error_is_enough_and_one_less_is_not():
    values = {"lattice_size": (2, 2, 40), "distant_links": 1}
    with pytest.raises(ConfigError) as error:
        geometry(shape(**values, lattice_steps=1))
    needed = int(str(error.value).rpartition("set lattice_steps to ")[2].split()[0])
    geometry(shape(**values, lattice_steps=needed))
    with pytest.raises(ConfigError):
        geometry(shape(**values, lattice_steps=needed - 1))
