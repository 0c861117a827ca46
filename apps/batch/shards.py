"""Results as Parquet: one file per input, whole or refused, and the same bytes every time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.apps.batch.storage import arrow, reason_of
from prunus.runtime.errors import ArtifactError
from prunus.runtime.json_text import canonical

Columns = Sequence[tuple[str, str]]
FACTS = b"prunus"  # key of what holds for the whole file, as JSON
FIRST: Columns = (("input", "string"), ("seconds", "double"))
LAST: Columns = (("model_sha256", "string"), ("prunus", "string"))
QUARANTINE: Columns = (
    ("input", "string"), ("reason", "string"), ("hint", "string"), ("prunus", "string"),
)  # fmt: skip
_ROWS = 1024  # of a row group: what is in memory at a time
_SEAL = 65  # bytes before the facts
_SAME = ("input", "model_sha256", "prunus")  # columns of one value


def _type(word: str) -> Any:
    """Return Arrow's type of a word, ``list<double>``, or ``map<double>`` by texts."""
    pa = arrow("pyarrow")
    outer, _, inner = word.rstrip(">").partition("<")
    if outer == "list":
        return pa.list_(pa.field("item", _type(inner), nullable=False))
    if outer == "map":
        return pa.map_(pa.string(), _type(inner))
    return pa.type_for_alias(outer)


def _schema(columns: Columns) -> Any:
    pa = arrow("pyarrow")
    return pa.schema([pa.field(name, _type(kind)) for name, kind in columns])


def _sealed(facts: Mapping[str, Any], digest: Any) -> bytes:
    """Return facts as JSON behind the hash of all values and of themselves."""
    told = canonical(facts)
    (whole := digest.copy()).update(told)
    return f"{whole.hexdigest()} ".encode() + told


def _add(digest: Any, table: Any) -> None:
    """Add the values of a table to a hash, whatever layout they have in memory."""
    for column in table.columns:
        _add_array(digest, column.combine_chunks())


def _add_array(digest: Any, array: Any) -> None:
    types, compute = arrow("pyarrow.types"), arrow("pyarrow.compute")
    digest.update(array.is_valid().to_numpy(zero_copy_only=False).tobytes())
    if types.is_struct(array.type):
        for part in array.flatten():
            _add_array(digest, part)
    elif types.is_list(array.type) or types.is_map(array.type):
        lists = array.cast(_as_list(array.type)) if types.is_map(array.type) else array
        _add_array(digest, compute.list_value_length(lists).fill_null(0))
        _add_array(digest, lists.flatten())
    elif types.is_string(array.type) or types.is_binary(array.type):
        _add_array(digest, compute.binary_length(array).fill_null(0))
        for value in array.cast("binary").drop_null().to_pylist():
            digest.update(value)
    else:
        digest.update(array.fill_null(0).to_numpy(zero_copy_only=False).tobytes())


def _as_list(kind: Any) -> Any:
    pa = arrow("pyarrow")
    pair = pa.struct([pa.field("key", kind.key_type, nullable=False), kind.item_field])
    return pa.list_(pa.field("entries", pair, nullable=False))


def write_shard(
    path: Path,
    columns: Columns,
    rows: Iterable[Mapping[str, Any]],
    same: Mapping[str, str],
    facts: Mapping[str, Any],
) -> int:
    """Write a Parquet file and return its number of rows.

    Args:
        path: The file.
        columns: Name and type of each.
        rows: Values by name; what a row lacks is null.
        same: Values that all rows share.
        facts: What holds for the whole file.
    """
    pa, parquet = arrow("pyarrow"), arrow("pyarrow.parquet")
    schema, digest = _schema(columns), hashlib.sha256()
    count, rest = 0, iter(rows)
    with parquet.ParquetWriter(
        path, schema, compression="zstd", write_page_checksum=True, write_statistics=False,
        use_dictionary=[name for name, _ in columns if name in _SAME],
    ) as writer:  # fmt: skip
        while part := list(itertools.islice(rest, _ROWS)):
            whole = {
                name: [same.get(name)] * len(part) if name in same else [r.get(name) for r in part]
                for name, _ in columns
            }
            table = pa.table(whole, schema)
            _add(digest, table)
            writer.write_table(table)
            count += len(part)
        writer.add_key_value_metadata({FACTS.decode(): _sealed(facts, digest).decode()})
    return count


def read_facts(path: Path, columns: Columns) -> dict[str, Any]:
    """Return what holds for the whole of a file, and its ``rows``, once all of it was read.

    The hash of all values is compared: check sums of pages do not cover what stands around them.

    Args:
        path: The file.
        columns: Those that it must have.

    Raises:
        ArtifactError: it is cut, damaged or of another maker.
    """
    digest, rows = hashlib.sha256(), 0
    with _opened(path) as file:
        sealed: bytes = (file.metadata.metadata or {}).get(FACTS, b"")
        facts = _parsed(sealed[_SEAL:])
        if facts is None:
            raise ArtifactError("The file does not say what it is.")
        if not file.schema_arrow.equals(_schema(columns)):
            names = ", ".join(file.schema_arrow.names)
            raise ArtifactError(f"The file has other columns: {names}.")
        for part in range(file.num_row_groups):
            _add(digest, table := file.read_row_group(part, use_threads=False))
            rows += table.num_rows
    if sealed != _sealed(facts, digest):
        raise ArtifactError("The file is damaged: its hash is another.")
    return {**facts, "rows": rows}


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; raises ArtifactError."""
    with _opened(path) as file:
        for batch in file.iter_batches(_ROWS, use_threads=False):
            yield from batch.to_pylist()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pa, parquet = arrow("pyarrow"), arrow("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ArtifactError(f"It is no whole Parquet file: {reason_of(error)}.") from None


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None
