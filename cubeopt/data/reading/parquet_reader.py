"""A program that unpacks the columns of numbers of one parquet file.

The numbers go to its output, column after column; the last line of its errors tells in JSON what
they are, or why there are none. It has a process of its own because Arrow ends the one that it is
in on some damaged files, and because a process can be kept from filling the memory.
"""

import json
import resource
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MOST_UNPACKED = 64  # times the size of the file: equal rows take next to nothing
_PIECE_ROWS = 1024
_SPARE_BYTES = 1 << 26
_SPARE_MEMORY = 1 << 33  # of addresses, of which Arrow takes far more than of memory
_LONGEST_TEXT = 1 << 24  # bytes of a text in the file's own description
_MOST_ITEMS = 1 << 16  # of a list in it
_SMALLEST_NUMBER = 2  # bytes
_MARKS = ("labels", "groups")
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}  # by Arrow's names


class Refused(Exception):
    """The file is not read; the text is the reason."""


class Damaged(Exception):
    """Arrow could not make sense of the file; the text is the name of its error."""


@dataclass(frozen=True)
class Column:
    """Where the numbers of a column lie in the output, and what they are."""

    name: str
    start: int  # bytes
    dtype: str
    shape: tuple[int, ...]


def main() -> None:
    """Unpack the file that the first argument names; the second is its size in bytes."""
    path, size = sys.argv[1], int(sys.argv[2])
    limit = _SPARE_MEMORY + 4 * size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        told = _unpack(path, size, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except Refused as error:
        told = {"refused": str(error)}
    except MemoryError:
        told = {"refused": "it needs more memory than there is"}
    except Exception as error:  # Arrow's own words may go over many lines
        raise Damaged(type(error).__name__) from error
    print("\n" + json.dumps(told), file=sys.stderr)


def _unpack(path: str, size: int, out: IO[bytes]) -> dict[str, Any]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(
        path,
        pre_buffer=False,
        thrift_string_size_limit=_LONGEST_TEXT,
        thrift_container_size_limit=_MOST_ITEMS,
    ) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        if len(set(schema.names)) < len(schema.names):
            raise Refused("two columns have the same name")
        wanted = [field.name for field in schema if _is_wanted(field)]
        _check_claims(file.metadata, size, wanted)
        columns: list[Column] = []
        start = 0
        for name in wanted:
            writer = _Writer(name, rows, MOST_UNPACKED * size + _SPARE_BYTES - start, out)
            for batch in file.iter_batches(_PIECE_ROWS, columns=[name], use_threads=False):
                writer.add(batch.column(name))
            columns.append(writer.finished(start))
            start += writer.written
        description = {
            key.decode(): value.decode() for key, value in (schema.metadata or {}).items()
        }
        return {
            "description": description,
            "names": schema.names,
            "columns": [asdict(column) for column in columns],
        }


def _is_wanted(field: Any) -> bool:
    """Whether *field* is lists of numbers, or whole numbers that mark rows."""
    from pyarrow import types

    form = field.type
    if types.is_list(form) or types.is_large_list(form) or types.is_fixed_size_list(form):
        return types.is_floating(form.value_type) or types.is_integer(form.value_type)
    return field.name in _MARKS and types.is_integer(form)


def _check_claims(metadata: Any, size: int, wanted: Collection[str]) -> None:
    """Refuse a file that claims far more numbers than can be packed into its size."""
    count = 0
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        chunks = [group.column(each) for each in range(group.num_columns)]
        count += sum(
            chunk.num_values for chunk in chunks if chunk.path_in_schema.split(".")[0] in wanted
        )
    if count * _SMALLEST_NUMBER > MOST_UNPACKED * size + _SPARE_BYTES:
        raise Refused(f"it claims {count} numbers, too many for its {size} bytes")


class _Writer:
    """Writes one column piece by piece; all its rows must be alike."""

    def __init__(self, name: str, rows: int, most_bytes: int, out: IO[bytes]) -> None:
        self._name = name
        self._rows = rows
        self._most_bytes = most_bytes
        self._out = out
        self._form: tuple[tuple[int, ...], np.dtype[Any]] | None = None  # of one row
        self._filled = 0
        self.written = 0  # bytes

    def add(self, piece: Any) -> None:
        """Take the next rows; one without a value is NaN, or -1 where it is a whole number."""
        piece.validate(full=True)  # damaged offsets would be followed out of the memory
        self._filled += len(piece)
        if self._filled > self._rows:
            raise Refused(f"{self._name}: more rows than the {self._rows} that the file claims")
        numbers = _lists(piece, self._name) if hasattr(piece, "flatten") else _numbers(piece)
        form = (numbers.shape[1:], numbers.dtype)
        self._form = self._form or form
        if form != self._form:
            raise Refused(f"{self._name}: rows of {self._form[0]} and of {form[0]} numbers")
        whole = np.full((len(piece), *form[0]), -1 if form[1].kind in "iu" else np.nan, form[1])
        whole[piece.is_valid().to_numpy(zero_copy_only=False)] = numbers
        self.written += self._out.write(whole.tobytes())
        if self.written > self._most_bytes:
            raise Refused(f"it unpacks to more than {MOST_UNPACKED} times its size")

    def finished(self, start: int) -> Column:
        """What was written, from the byte *start* of the output on."""
        if self._filled != self._rows:
            raise Refused(f"{self._name}: {self._filled} rows of {self._rows} claimed ones")
        shape, dtype = self._form or ((0,), np.dtype("float32"))
        return Column(self._name, start, dtype.name, (self._rows, *shape))


def _lists(piece: Any, name: str) -> NDArray[Any]:
    """The lists of *piece* that are there; a missing number in one is NaN."""
    from pyarrow import compute

    lengths = compute.list_value_length(piece).drop_null().unique().to_pylist()
    if len(lengths) != 1:
        sizes = " and ".join(map(str, sorted(lengths)[:2])) or "no"
        raise Refused(f"{name}: rows of {sizes} numbers")
    numbers = piece.flatten()
    if numbers.null_count and str(numbers.type) not in _FLOATS:
        raise Refused(f"{name}: whole numbers, some of them missing")
    return _numbers(numbers).reshape(len(piece) - piece.null_count, lengths[0])


def _numbers(piece: Any) -> NDArray[Any]:
    """The numbers of *piece*; a missing one is NaN, or left away where it is a whole number."""
    dtype = np.dtype(_FLOATS.get(str(piece.type), str(piece.type)))
    if dtype.kind == "f":
        return np.asarray(piece.to_numpy(zero_copy_only=False), dtype)
    return np.asarray(piece.drop_null().to_numpy(zero_copy_only=False), dtype)


if __name__ == "__main__":
    main()
