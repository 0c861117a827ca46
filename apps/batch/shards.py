"""Results as Parquet: one file per input, whole or refused, and the same bytes every time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.apps.batch.storage import arrow, reason_of
from prunus.runtime.errors import ArtifactError

Columns = Sequence[tuple[str, str]]
FACTS = b"prunus"  # key of what holds for the whole file, as JSON
FIRST: Columns = (("input", "string"), ("seconds", "double"))
LAST: Columns = (("model_sha256", "string"), ("prunus", "string"))
QUARANTINE: Columns = (
    ("input", "string"), ("reason", "string"), ("hint", "string"), ("prunus", "string"),
)  # fmt: skip
_ROWS = 1024  # of a row group: what is in memory at a time
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
    told = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    schema = pa.schema([pa.field(name, _type(kind)) for name, kind in columns], {FACTS: told})
    count, rest = 0, iter(rows)
    with parquet.ParquetWriter(
        path, schema, compression="zstd", write_page_checksum=True, version="2.6",
        use_dictionary=[name for name, _ in columns if name in _SAME],
    ) as writer:  # fmt: skip
        while part := list(itertools.islice(rest, _ROWS)):
            whole = {
                name: [same.get(name)] * len(part) if name in same else [r.get(name) for r in part]
                for name, _ in columns
            }
            writer.write_table(pa.table(whole, schema))
            count += len(part)
    return count


def read_facts(path: Path) -> dict[str, Any]:
    """Return what holds for the whole of a file, and its ``rows``, once all of it was read.

    Every page is compared with its check sum.

    Raises:
        ArtifactError: it is cut, damaged or of another maker.
    """
    rows = sum(part.num_rows for part in _pages(path))
    parquet = arrow("pyarrow.parquet")
    try:
        facts = json.loads(parquet.read_schema(path).metadata[FACTS])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"The file says nothing about itself: {error!r}.") from None
    if not isinstance(facts, dict):
        raise ArtifactError("The file says nothing about itself.")
    return {**facts, "rows": rows}


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; raises ArtifactError."""
    for batch in _pages(path):
        yield from batch.to_pylist()


def _pages(path: Path) -> Iterator[Any]:
    pa, parquet = arrow("pyarrow"), arrow("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(_ROWS, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ArtifactError(f"It is no whole Parquet file: {reason_of(error)}.") from None
