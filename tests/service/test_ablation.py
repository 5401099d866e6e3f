"""What each part is worth: the same seeds, the same batches, something taken away."""

import json
import threading

import pytest

from cubeopt import trial
from cubeopt.errors import ConfigError, DivergedError
from cubeopt.service import ablation
from cubeopt.service.ablation import Variant
from cubeopt.service.packs import Place

SMALL = {
    "lattice_size": [3, 3, 4],
    "embedding_size": 24,
    "state_size": 8,
    "lattice_steps": 3,
    "batch_size": 16,
    "distant_links": 4,
    "epochs": 2,
}


def spec(**values):
    return trial.from_flat({**SMALL, **values})


def names(found):
    return [each.name for each in found]


def test_every_part_is_taken_away_once():
    found = ablation.variants(spec())
    assert names(found) == [
        "the whole cube",
        *("without local", "without functional", "without distant"),
        *("gate frozen", "emergence off", "2 steps, the fewest", "6 steps, twice as many"),
    ]
    assert found[1].values == {"experts": ["functional", "distant"]}
    for each in found:
        assert spec().with_values(each.values) != spec() or each.name == ablation.WHOLE


def test_what_is_not_there_is_not_taken_away():
    bare = spec(experts="distant", emergence_weight=0.0, lattice_steps=2)
    assert names(ablation.variants(bare)) == ["the whole cube", "4 steps, twice as many"]
    near = spec(placement="same_face")
    assert "one step" in names(ablation.variants(near))


def test_some_variants_by_name_beside_the_whole_cube():
    assert names(ablation.named(spec(), ["gate frozen"])) == ["the whole cube", "gate frozen"]
    with pytest.raises(ConfigError, match=r"variant 'gate': expected one of the whole cube; .*"):
        ablation.named(spec(), ["gate"])


def request(folder, variants, seeds=(0, 1), jobs=2, **values):
    return ablation.Request(spec(**values), variants, seeds, "fvu", Place(folder, None, jobs))


def test_differences_are_paired_by_seed_and_runs_repeat(tiny_dataset):
    same = Variant("the same again", {})
    less = Variant("without local", {"experts": ["functional", "distant"]})
    told = []
    report = ablation.run(
        request(tiny_dataset, [Variant(ablation.WHOLE, {}), same, less]),
        threading.Event(),
        told.append,
    )
    whole, again, without = report.rows
    assert whole.values == again.values
    assert (again.difference, again.error) == (0.0, 0.0)
    assert whole.value == pytest.approx(sum(whole.values) / 2)
    pairs = [a - b for a, b in zip(without.values, whole.values, strict=True)]
    assert without.difference == pytest.approx(sum(pairs) / 2)
    assert without.error == pytest.approx(abs(pairs[0] - pairs[1]) / 2)
    assert without.weights < whole.weights
    assert "validation/usage/local" not in without.metrics
    assert {(each.variant, each.epoch) for each in told} == {
        (name, epoch) for name in (ablation.WHOLE, same.name, less.name) for epoch in (1, 2)
    }
    json.dumps(report.as_json(), allow_nan=False)


def test_a_variant_that_cannot_be_is_named(tiny_dataset):
    wrong = Variant("one step", {"lattice_steps": 1})
    with pytest.raises(ConfigError, match="one step: lattice_steps is 1, but from the cells"):
        ablation.run(request(tiny_dataset, [wrong]), threading.Event(), lambda at: None)


def test_it_stops_when_it_is_told_to(tiny_dataset):
    stop = threading.Event()
    found = ablation.run(
        request(tiny_dataset, [Variant(ablation.WHOLE, {})], epochs=10_000),
        stop,
        lambda at: stop.set(),
    )
    assert found is None


def test_one_that_diverges_ends_it_and_is_named(tiny_dataset):
    wild = Variant("wild", {"learning_rate": 1e3, "gradient_clip": 1e30})
    with pytest.raises(DivergedError, match=r"^wild: diverged in epoch 1; lower learning_rate$"):
        ablation.run(request(tiny_dataset, [wild], epochs=9), threading.Event(), lambda at: None)
