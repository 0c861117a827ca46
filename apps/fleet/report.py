"""`prunus fleet report`: the receipts of all devices, what is wrong first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from prunus.apps.common.tables import plain_table
from prunus.apps.fleet.options import ReportOptions
from prunus.apps.fleet.receipt import OK, VERDICTS, read
from prunus.apps.fleet.signing import Signature, trusted_keys
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError, CheckFailedError
from prunus.runtime.json_text import json_text

INVALID, UNKNOWN = "invalid", "unknown-signer"
_COLUMNS = ("device", "verdict", "bundle", "model", "p50 ms", "p99 ms", "MiB", "drift", "when")
_RANKS = {INVALID: 0, UNKNOWN: 1}  # then faults, then what passes


@dataclass(frozen=True, slots=True)
class Entry:
    """One receipt.

    Attributes:
        file: Its file.
        device: What it calls itself; the file where it cannot be believed.
        verdict: ``ok``, the first fault, ``invalid`` or ``unknown-signer``.
        bundle: Name and digest of the bundle.
        when: UTC.
        signer: Short name of the key.
        details: What was seen, a line each.
        rows: Per model: name, p50 and p99 in ms, memory in MiB, drift in percent.
        machine: Processor, and GPU where there is one.
    """

    file: str
    device: str
    verdict: str
    bundle: str = ""
    when: str = ""
    signer: str = ""
    details: tuple[str, ...] = ()
    rows: tuple[tuple[str, str, str, str, str], ...] = ()
    machine: str = ""

    @property
    def rank(self) -> tuple[int, str, str]:
        """Order in the report."""
        return _RANKS.get(self.verdict, 3 if self.verdict == OK else 2), self.device, self.bundle


def report(options: ReportOptions, console: Console) -> None:
    """Show receipts as a table, JSON and a page.

    Raises:
        ArtifactError: no receipts there, or a wrong key.
        CheckFailedError: a device fails, or a receipt cannot be believed; names them.
        SourceError: the page cannot be written.
    """
    entries, older = gather(options.receipts, trusted_keys(options.key))
    notes = [f"{older} older receipts are left out."] if older else []
    if not options.key:
        notes.append("No --key: signatures show that nothing was changed, not who signed.")
    if options.output is not None:
        write_whole(options.output, page(entries, notes))
    bad = [entry for entry in entries if entry.verdict != OK]
    title = f"{len(entries)} receipts, {len(bad)} of them not ok"
    lines = [plain_table(title, _COLUMNS, [row for entry in entries for row in _cells(entry)])]
    lines += [f"{entry.device}: {line}" for entry in bad for line in entry.details]
    raw = {"receipts": [dataclasses.asdict(entry) for entry in entries], "notes": notes}
    console.say("\n".join([*lines, *notes]), json_text(raw, indent=1))
    if bad:
        named = ", ".join(f"{entry.device} ({entry.verdict})" for entry in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise CheckFailedError(f"Not ok: {named}{more}.", "The table says what was seen.")


def gather(place: Path, keys: Set[str]) -> tuple[list[Entry], int]:
    """Return the newest receipt of each device and bundle, what is wrong first, and how many more.

    Args:
        place: Folder, or one receipt.
        keys: Public keys of devices in Base64; empty: any.

    Raises:
        ArtifactError: no receipts there.
    """
    files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    if not files or not files[0].is_file():
        raise ArtifactError(
            f"There are no receipts in {place}.",
            "Devices write them: prunus verify BUNDLE --sign FILE.key -o RECEIPT.json",
        )
    found = [_entry(file, keys) for file in files]
    newest: dict[tuple[str, ...], Entry] = {}
    for entry in sorted(found, key=lambda e: e.when):
        # A receipt that cannot be believed stands for itself: it must not hide a good one.
        key: tuple[str, ...] = (entry.file,)
        if entry.verdict not in _RANKS:
            key = (entry.device, entry.bundle.partition(" ")[0], entry.signer)
        newest[key] = entry
    return sorted(newest.values(), key=lambda e: e.rank), len(found) - len(newest)


def _entry(file: Path, keys: Set[str]) -> Entry:
    try:
        return _believed(file, *read(file), keys)
    except ArtifactError as error:
        return Entry(str(file), file.name, INVALID, details=(error.message,))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # whoever signed it
        return Entry(str(file), file.name, INVALID, details=(f"{file} is no receipt.",))


def _believed(file: Path, made: Mapping[str, Any], signature: Signature, keys: Set[str]) -> Entry:
    verdict = str(made["findings"][0]["verdict"]) if made["findings"] else OK
    details = [f"{f['verdict']} ({f['model']}): {f['detail']}" for f in made["findings"]]
    if keys and signature.key not in keys:
        verdict = UNKNOWN
        details.insert(0, f"signed by {signature.signer}, which is none of the given keys")
    machine, bundle = made["machine"], made["bundle"]
    if not bundle["trusted"]:
        details.append("the signer of the bundle was not checked (verify without --key)")
    gpu = str(machine.get("gpu", ""))
    return Entry(
        str(file), str(made["device"]), verdict, f"{bundle['name']} {bundle['digest'][:12]}",
        str(made["time"]), signature.signer, tuple(details), tuple(map(_row, made["models"])),
        str(machine.get("processor", "")) + ("" if gpu.startswith("none") else f", {gpu}"),
    )  # fmt: skip


def _row(model: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    times, run = model.get("latency") or {}, model.get("soak") or {}
    numbers = [f"{times[k]:.2f}" if k in times else "-" for k in ("p50_ms", "p99_ms")]
    memory = model.get("peak_memory_mib")
    drift = f"{100 * run['drift']:.1f}" if run else "-"
    return str(model["name"]), *numbers, f"{memory:.0f}" if memory else "-", drift  # type: ignore[return-value]


def _cells(entry: Entry) -> list[tuple[str, ...]]:
    rows = entry.rows or (("-",) * 5,)
    return [(entry.device, entry.verdict, entry.bundle, *row, entry.when) for row in rows]


def page(entries: Sequence[Entry], notes: Sequence[str]) -> str:
    """Return one HTML page that loads nothing from elsewhere."""
    bad = sum(entry.verdict != OK for entry in entries)
    cards = "\n".join(_section(entry) for entry in entries)
    said = "".join(f"<p class=note>{escape(note)}</p>" for note in notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{bad} of {len(entries)} not ok</title>
<style>{_STYLE}</style></head><body>
<h1>{len(entries)} receipts, <span class={"bad" if bad else "ok"}>{bad} not ok</span></h1>
{said}
{cards}
</body></html>
"""


def _section(entry: Entry) -> str:
    kind = "ok" if entry.verdict == OK else "bad"
    meaning = VERDICTS.get(entry.verdict, "")
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in entry.rows
    )
    heads = "".join(f"<th>{head}</th>" for head in ("model", "p50 ms", "p99 ms", "MiB", "drift %"))
    table = f"<table><tr>{heads}</tr>{rows}</table>" if rows else ""
    details = "".join(f"<li>{escape(line)}</li>" for line in entry.details)
    facts = " · ".join(filter(None, (entry.bundle, entry.when, entry.machine, entry.signer)))
    return (
        f"<section class={kind}><h2>{escape(entry.device)} <b>{escape(entry.verdict)}</b></h2>"
        f"<p>{escape(meaning)}</p><ul>{details}</ul>{table}<p class=note>{escape(facts)}</p>"
        "</section>"
    )


_STYLE = """
:root{color-scheme:light dark;--bad:#c62828;--ok:#2e7d32}
@media(prefers-color-scheme:dark){:root{--bad:#ff8a80;--ok:#81c784}}
body{font:16px/1.45 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}
section{border:1px solid #8885;border-left:.4rem solid var(--ok);border-radius:.4rem;
 padding:.2rem 1rem;margin:.8rem 0;overflow-x:auto}
section.bad{border-left-color:var(--bad)}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:.4rem 0}
.bad b,span.bad{color:var(--bad)}.ok b,span.ok{color:var(--ok)}
p{margin:.3rem 0}ul{margin:.3rem 0;padding-left:1.2rem}li{overflow-wrap:anywhere}
.note{opacity:.7;font-size:.85rem;overflow-wrap:anywhere}
table{border-collapse:collapse}td,th{padding:.1rem .8rem .1rem 0;text-align:right}
td:first-child,th:first-child{text-align:left;overflow-wrap:anywhere}
"""
