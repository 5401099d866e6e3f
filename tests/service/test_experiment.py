"""A configuration trained again is the run it came from, whatever interrupted it."""

import json
import shutil
import threading

import pytest
import torch

from cubeopt import trial
from cubeopt.data import dataset
from cubeopt.data.building import unify
from cubeopt.errors import CheckpointError, ConfigError, CubeoptError, DataError, DivergedError
from cubeopt.report import summary, winner
from cubeopt.search import configuration
from cubeopt.service import experiment
from cubeopt.service.experiment import Request
from cubeopt.training.diagnosis import Kind
from cubeopt.trial import Task

from .conftest import PROVENANCE, coordinating

BATCHES = 5  # in an epoch of the tiny dataset at 32 rows a batch
_CLOCK = ("epoch_seconds", "samples_per_second", "peak_memory_bytes", "device_utilisation")


@pytest.fixture
def config(settings, tiny_study):
    """A configuration file of the tiny study's base, as a person would write one."""
    path = settings.storage_dir / "config.yaml"
    spec = trial.from_flat({**tiny_study["base"], "log_interval": 1, "batch_size": 32, "epochs": 4})
    configuration.write({configuration.TRAINING_SECTION: spec.flat()}, path)
    return path


@pytest.fixture
def train(settings, config):
    """Train a configuration; after *batches* of this call, if given, somebody stops it."""

    def run(name="first", config=config, batches=None, **options):
        stop, told = threading.Event(), []

        def tell(progress):
            told.append(progress)
            if len(told) == batches:
                stop.set()

        request = Request(config, name, torch.device("cpu"), **options)
        return experiment.train(request, settings, PROVENANCE, stop, tell)

    return run


def change(config, section=configuration.TRAINING_SECTION, **values):
    """Write *config* with *values* put into *section*."""
    content = configuration.read_mapping(config)
    content[section] = {**content.get(section, {}), **values}
    configuration.write(content, config)


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if name not in _CLOCK}


def facts(folder):
    """All that a training left behind but the times it took: result, log, newest numbers."""
    result = json.loads((folder / "result.json").read_text())
    last = folder / "checkpoints" / result.pop("checkpoint").rpartition("/")[2]
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "result": {**result, "log": None, "metrics": without_clock(result["metrics"])},
        "log": [without_clock(line) for line in log],
        "state": (last / "state.safetensors").read_bytes(),
    }


def other_dataset(folder):
    """Put another dataset at *folder*."""
    shutil.rmtree(folder)
    rows = torch.nn.functional.normalize(torch.randn(60, 24), dim=1)
    torch.save(rows, folder.parent / "other.pt")
    unify.build([folder.parent / "other.pt"], folder, unify.BuildOptions(width=24))


def test_the_exported_winner_trained_again_gives_its_value_bit_for_bit(
    engine, settings, create, work, train
):
    record = create(budget={"trials": 3})
    with coordinating(engine):
        work(pack=2)
    content = winner.exported(summary.load(engine, record.name))
    path = settings.exports_dir / "tiny.yaml"
    configuration.write(content, path)
    result = train("again", config=path)
    origin = content["provenance"]
    assert origin["run"] == "full"
    assert origin["pack_width"] == 2
    assert (result.metric, result.value) == (origin["metric"], origin["value"])
    assert result.metrics["test/fvu"] == origin["test_value"]
    assert result.epochs == origin["epochs"] == 6
    other_dataset(settings.data_dir / "tiny")
    with pytest.raises(DataError, match=r"was trained on a dataset .* pass --force"):
        train("forced", config=path)
    assert train("forced", config=path, force=True).value != origin["value"]


@pytest.mark.parametrize(
    "stops",  # in the first epoch; between epochs; often, the last time in the last epoch
    [[4], [BATCHES, BATCHES], [3, BATCHES + 1, 2 * BATCHES, 3]],
)
def test_a_training_stopped_anywhere_and_resumed_leaves_the_same_bits(settings, train, stops):
    train("calm")
    resume = False
    for batches in stops:
        assert train("troubled", batches=batches, resume=resume) is None
        resume = True
    train("troubled", resume=True)
    calm, troubled = (facts(settings.experiments_dir / name) for name in ("calm", "troubled"))
    assert [line["epoch"] for line in calm["log"]] == [1, 2, 3, 4]
    assert troubled == calm


def test_a_killed_training_goes_on_from_its_last_checkpoint(settings, train):
    train("calm")
    folder = settings.experiments_dir / "killed"
    shutil.copytree(settings.experiments_dir / "calm", folder)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / f"step_{4 * BATCHES:08d}")
    log = folder / "metrics.jsonl"
    log.write_text(log.read_text()[:-40])  # in the middle of its last line
    train("killed", resume=True)
    assert facts(folder) == facts(settings.experiments_dir / "calm")


def test_resuming_what_has_ended_says_the_same_again(settings, train):
    first = train()
    assert train(resume=True) == first


def test_the_result_stands_beside_the_baselines_and_what_was_found(settings, train, config):
    change(config, reconstruction_weight=0.0, similarity_weight=0.0, epochs=5)
    result = train()
    assert [each.name for each in result.baselines] == ["mean", "pca"]
    (found,) = (each for each in result.findings if each.kind is Kind.WORSE_THAN_MEAN)
    assert (found.first, found.last) == (3, 5)
    kept = json.loads((settings.experiments_dir / "first" / "result.json").read_text())
    assert kept == result.as_json()
    assert kept["baselines"][1]["width"] == 4
    assert set(kept["baselines"][1]["test"]) == {"fvu", "cosine", "top1", "mrr"}
    assert kept["findings"][0]["kind"] == "worse than the mean"
    assert kept["corpora"] == []


def test_each_corpus_of_a_pooled_dataset_stands_in_the_result(settings, train, tiny_dataset):
    files = sorted(tiny_dataset.parent.glob("dialogue_*.pt"))
    parts = [settings.storage_dir / name for name in ("first", "second")]
    for part, some in zip(parts, (files[:6], files[6:]), strict=True):
        part.mkdir()
        for each in some:
            shutil.copy(each, part)
    folder = settings.storage_dir / "data" / "tiny"
    shutil.rmtree(folder)
    names = {part: part.name for part in parts}
    unify.build(parts, folder, unify.BuildOptions(width=24, corpora=names))
    result = train()
    assert {each.corpus for each in result.corpora} == {"first", "second"}
    counts = dataset.load(folder).counts([Task.RECONSTRUCT])
    for split in ("validation", "test"):
        assert sum(e.rows for e in result.corpora if e.split == split) == counts[split]
    rows = sum(each.rows for each in result.corpora if each.split == "validation")
    mean = sum(e.rows * e.cosine for e in result.corpora if e.split == "validation") / rows
    assert mean == pytest.approx(result.metrics["validation/cosine"])


def test_what_is_told_adds_up(settings, config):
    change(config, log_interval=2, reconstruction_weight=0.0, similarity_weight=0.0)
    told = []
    request = Request(config, "told", torch.device("cpu"))
    experiment.train(request, settings, PROVENANCE, threading.Event(), told.append)
    ends = [each for each in told if each.metrics is not None]
    assert [each.step for each in told] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    assert [(each.epoch, each.step) for each in ends] == [(k, k * BATCHES) for k in (1, 2, 3, 4)]
    assert {(each.epochs, each.total_steps) for each in told} == {(4, 4 * BATCHES)}
    assert all(each.samples_per_second > 0.0 for each in told)
    assert (ends[-1].seconds_left, told[0].seconds_left > 0.0) == (0.0, True)
    assert {"loss/total", "loss/reconstruction", "gradient_norm/all"} <= set(told[0].numbers)
    for end in ends:
        assert end.numbers["loss/total"] == end.metrics["train/loss/total"]
        assert all(found.first == end.epoch for found in end.findings)
    assert [found.kind for end in ends for found in end.findings] == [Kind.WORSE_THAN_MEAN]


def test_a_damaged_log_is_one_clear_error(settings, train):
    train(batches=7)
    log = settings.experiments_dir / "first" / "metrics.jsonl"
    log.write_text("{\n" + log.read_text())
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: ") as caught:
        train(resume=True)
    assert "\n" not in str(caught.value)


def test_the_folder_holds_the_whole_configuration(settings, train, config):
    train()
    kept, origin = configuration.read_training(settings.experiments_dir / "first" / "config.yaml")
    assert kept == configuration.read_training(config)[0]
    assert origin is None


def test_an_experiment_is_never_overwritten(settings, train):
    train(batches=7)
    with pytest.raises(ConfigError, match=r"'first' has checkpoints .* continue it with --resume"):
        train()


def test_there_must_be_something_to_resume(train):
    with pytest.raises(CheckpointError, match="nothing to resume: no checkpoint in"):
        train(resume=True)


def test_only_the_config_it_was_started_with_resumes_a_training(train, config):
    train(batches=7)
    change(config, learning_rate=0.5)
    with pytest.raises(CheckpointError, match="resume with the config it was started with"):
        train(resume=True)


def test_a_training_is_not_resumed_at_another_width(train, config):
    train(batches=7)
    change(config, configuration.PROVENANCE_SECTION, pack_width=3)
    with pytest.raises(CheckpointError, match="at pack width 1, the config asks for 3"):
        train(resume=True)


def test_a_training_is_not_resumed_on_another_dataset(settings, train):
    train(batches=7)
    other_dataset(settings.data_dir / "tiny")
    with pytest.raises(CheckpointError, match="was trained on another dataset"):
        train(resume=True, force=True)


@pytest.mark.parametrize("width", [0, -1, 1.5, True, "two", 1_000_000])
def test_a_pack_width_that_no_run_has_is_refused(train, config, width):
    change(config, configuration.PROVENANCE_SECTION, pack_width=width)
    with pytest.raises(ConfigError, match=r"provenance\.pack_width must be 1 to 4096, got"):
        train()


@pytest.mark.parametrize("metric", ["accuracy", ["fvu"], None])
def test_a_metric_that_nobody_measures_is_refused_before_the_training(train, config, metric):
    change(config, configuration.PROVENANCE_SECTION, metric=metric)
    with pytest.raises(
        ConfigError, match=r"provenance\.metric must be one of fvu, cosine, .*, got"
    ):
        train()


@pytest.mark.parametrize("name", ["", ".", "..", "../elsewhere", "/tmp/elsewhere", "a/b", "a\n"])
def test_an_experiment_stays_in_its_folder(settings, train, name):
    with pytest.raises(ConfigError, match="experiment name"):
        train(name)
    assert not settings.experiments_dir.exists()


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"{}"])
def test_a_damaged_checkpoint_is_one_clear_error(settings, train, file, damage):
    train(batches=7)
    (newest,) = (settings.experiments_dir / "first" / "checkpoints").iterdir()
    (newest / file).write_bytes(damage((newest / file).read_bytes()))
    with pytest.raises(CheckpointError, match=rf"checkpoint \S*{newest.name} is ") as caught:
        train(resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["", "config.yaml", "metrics.jsonl", "checkpoints"])
def test_a_folder_that_cannot_be_written_is_one_clear_error(settings, train, place):
    blocked = settings.experiments_dir / "first" / place
    blocked.parent.mkdir(parents=True)
    if place in ("", "checkpoints"):
        blocked.write_text("a file where a folder has to be")
    else:
        blocked.mkdir()
    with pytest.raises(CubeoptError, match=r"cannot write .*/first") as caught:
        train()
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_clear_error(settings, train):
    folder = settings.experiments_dir / "first"
    folder.mkdir(parents=True)
    (folder / ".result.json").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"cannot write .*: No space left on device"):
        train()
    (folder / ".result.json").unlink()
    assert train(resume=True).epochs == 4
    assert (folder / "result.json").exists()


def test_a_training_that_diverges_says_so_and_leaves_no_checkpoint_of_it(settings, train, config):
    change(config, learning_rate=900.0, gradient_clip=1e9, save_checkpoint_every=1)
    with pytest.raises(DivergedError, match=r"training diverged in epoch \d: .* lower"):
        train()
    folder = settings.experiments_dir / "first"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = (
        list((folder / "checkpoints").glob("step_*")) if (folder / "checkpoints").exists() else []
    )
    assert len(kept) == len(lines) - 1
    assert not (folder / "result.json").exists()
