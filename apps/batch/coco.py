"""All results of a batch as one COCO result file, as `prunus run` writes it for one source."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from prunus.apps.batch.inputs import Input
from prunus.apps.batch.ledger import RESULTS, Outcome, all_columns
from prunus.apps.batch.shards import read_facts, read_rows
from prunus.apps.batch.storage import Store
from prunus.apps.common.json_list import JsonListWriter
from prunus.apps.io.sources.pictures import picture_ids
from prunus.runtime.pictures.files import PICTURES

NAME = "coco.json"
_OURS = ("input", "model_sha256", "prunus")


def write(store: Store, inputs: Sequence[Input], told: Mapping[str, Outcome], task: Any) -> None:
    """Write `NAME`; an image's id is the picture's, or counts the frames of all inputs.

    Args:
        store: Folder of the run.
        inputs: All of them, in order.
        told: What became of them.
        task: Turns rows into entries.

    Raises:
        StorageError: a result cannot be read, or the file not be written.
    """
    names = [PurePosixPath(one.name).name for one in inputs]
    unique = max(Counter(names).values()) == 1
    pictures = all(PurePosixPath(name).suffix.lower() in PICTURES for name in names)
    ids = picture_ids(names) if pictures and unique else {}
    first = 0
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        writer = JsonListWriter(path := Path(folder) / NAME)
        try:
            for one, name in zip(inputs, names, strict=True):
                if told[one.name].reason:
                    continue
                with store.read(f"{RESULTS}/{one.key}.parquet") as shard:
                    frames = int(read_facts(shard, all_columns(task.columns))["frames"])
                    for row in read_rows(shard):
                        image = ids[name] if ids else first + row["frame"]
                        kept = {k: v for k, v in row.items() if k not in _OURS}
                        writer.add(task.coco(kept, image, name if unique else one.name))
                first += frames
        finally:
            writer.close()
        store.put(path, NAME)
