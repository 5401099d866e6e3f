"""Embeddings by the content of their text, in shards that are written whole or not at all.

Every writer makes shards of its own, under names that nobody else has, so processes that work side
by side cannot harm each other: at worst both embed the same text.

Shapes: M texts that are asked for, N some of them, D embedding, S rows of a shard.
"""

import logging
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from safetensors import SafetensorError, safe_open

from cubeopt.data import tensor_file
from cubeopt.errors import DataError

logger = logging.getLogger(__name__)

SHARD_TEXTS = 16384  # a shard is written when it holds as many ...
SHARD_SECONDS = 20.0  # ... or has waited for so long: what a killed process loses
DIGEST_BYTES = 32

_Shard = tuple[np.ndarray, np.ndarray, np.ndarray]  # digests, embeddings, truncated


class Cache:
    """What is known of the texts with *digests*: read from *folder*, and added to it."""

    def __init__(self, folder: Path, width: int, digests: UInt8[np.ndarray, "M 32"]) -> None:
        self.damaged: list[str] = []  # a line for each shard that cannot be used
        self.truncated: Bool[np.ndarray, " M"] = np.zeros(len(digests), dtype=bool)
        self.width = width
        self._folder, self._digests = folder, digests
        self._shards: list[np.ndarray] = []  # memory-mapped embeddings
        self._shard = np.full(len(digests), -1, dtype=np.int32)  # where a text's embedding is
        self._row = np.zeros(len(digests), dtype=np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []  # numbers and rows to be written
        self._since = time.monotonic()
        tensor_file.clean(folder)
        self._find()

    def missing(self) -> Int[np.ndarray, " N"]:
        """The numbers of the texts that no shard holds."""
        return np.flatnonzero(self._shard < 0)

    def add(
        self,
        numbers: Int[np.ndarray, " N"],
        rows: Float[np.ndarray, "N D"],
        truncated: Bool[np.ndarray, " N"],
    ) -> None:
        """Keep the embeddings of the texts with *numbers*; every now and then they are written."""
        self._waiting.append((numbers, rows))
        self.truncated[numbers] = truncated
        waited = time.monotonic() - self._since
        if waited >= SHARD_SECONDS or sum(len(each) for each, _ in self._waiting) >= SHARD_TEXTS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            numbers = np.concatenate([each for each, _ in self._waiting])
            rows = np.concatenate([each for _, each in self._waiting])
            path = self._folder / f"{uuid.uuid4().hex}{tensor_file.SUFFIX}"
            _write(path, (self._digests[numbers], rows, self.truncated[numbers].astype(np.uint8)))
            self._waiting = []
            self._place(numbers, np.arange(len(numbers)), _read(path)[1])
        self._since = time.monotonic()

    def rows(self, numbers: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N D"]:
        """The embeddings of the texts with *numbers*, all of which must be in shards."""
        found = np.empty((len(numbers), self.width), dtype=np.float32)
        shards = self._shard[numbers]
        assert (shards >= 0).all(), "every text has been embedded"
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            found[here] = self._shards[shard][self._row[numbers[here]]]
        return found

    def _find(self) -> None:
        # Eight bytes find a text, all of them decide; a clash would only cost its embedding again.
        keys = _keys(self._digests)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for path, shard in self._sound_shards():
            digests, embeddings, truncated = shard
            places = np.searchsorted(ordered, _keys(digests)).clip(max=len(ordered) - 1)
            numbers = order[places]
            rows = np.flatnonzero((self._digests[numbers] == digests).all(axis=1))
            if not len(rows):
                continue
            if reason := _unsound(path, shard):
                self._leave_out(path, reason)
                continue
            self._place(numbers[rows], rows, embeddings)
            self.truncated[numbers[rows]] = truncated[rows].astype(bool)

    def _sound_shards(self) -> Iterator[tuple[Path, _Shard]]:
        if not len(self._digests):
            return
        for path in sorted(self._folder.glob(f"*{tensor_file.SUFFIX}")):
            try:
                shard = _read(path)
            except DataError as error:
                self._leave_out(path, str(error).removeprefix(f"{path}: "))
                continue
            if shard[1].shape[1] == self.width:
                yield path, shard
            else:
                self._leave_out(path, f"expected width {self.width}, got {shard[1].shape[1]}")

    def _leave_out(self, path: Path, reason: str) -> None:
        self.damaged.append(f"{path}: {reason}")
        logger.warning("shard left out: %s: %s", path, reason)

    def _place(
        self,
        numbers: Int[np.ndarray, " N"],
        rows: Int[np.ndarray, " N"],
        embeddings: Float[np.ndarray, "S D"],
    ) -> None:
        self._shard[numbers] = len(self._shards)
        self._row[numbers] = rows
        self._shards.append(embeddings)


def _keys(digests: UInt8[np.ndarray, "N 32"]) -> np.ndarray:
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()


def _write(path: Path, shard: _Shard) -> None:
    names = ("digests", "embeddings", "truncated")
    columns = {name: tensor_file.array(part) for name, part in zip(names, shard, strict=True)}
    tensor_file.write(path, columns, {"crc32": _checksum(shard)})


def _read(path: Path) -> _Shard:
    """The tensors of a shard, memory-mapped; DataError where they do not fit together."""
    try:
        with safe_open(path, framework="pt") as file:
            names = ("digests", "embeddings", "truncated")
            digests, embeddings, truncated = (file.get_tensor(name).numpy() for name in names)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: truncated or damaged ({error})") from error
    rows = len(digests)
    fits = digests.shape == (rows, DIGEST_BYTES) and truncated.shape == (rows,)
    types = (digests.dtype, embeddings.dtype, truncated.dtype)
    if not fits or embeddings.ndim != 2 or len(embeddings) != rows:
        raise DataError(f"{path}: its tensors do not fit together")
    if types != (np.uint8, np.float32, np.uint8):
        raise DataError(f"{path}: its tensors have other types than those of a shard")
    return digests, embeddings, truncated


def _unsound(path: Path, shard: _Shard) -> str | None:
    """Why the numbers of a *shard* are not those that were written."""
    if tensor_file.header(path).metadata.get("crc32") == _checksum(shard):
        return None
    return "damaged: its content does not have its checksum"


def _checksum(shard: _Shard) -> str:
    value = 0
    for part in shard:
        value = zlib.crc32(np.ascontiguousarray(part).data, value)
    return f"{value:08x}"
