"""Pages of the site that are made from the code and from the files beside docs/.

MkDocs calls the ``on_...`` functions (https://www.mkdocs.org/user-guide/configuration/#hooks). The
reference of the command line is read off the rows and option dataclasses of the verbs, that of
Python names what a user holds in hand; the rest are the Markdown files of the repository's root.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prunus.apps.cli.main import build_app
from prunus.apps.cli.verbs import Verb
from prunus.runtime.options import parameters, table

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "LICENSES.md": "licences.md",
}
PYTHON = {
    "Open and run": (
        "prunus.api.load", "prunus.api.Predictor", "prunus.runtime.session.base.open",
        "prunus.runtime.session.base.BaseSession", "prunus.runtime.session.base.BackendOptions",
        "prunus.runtime.card.card.ModelCard",
    ),
    "Results": (
        "prunus.results.PoseResult", "prunus.results.MaskResult",
        "prunus.results.SpeechResult", "prunus.results.TensorResult",
    ),
    "Tasks": (
        "prunus.runtime.tasks.pose.estimator.PoseEstimator",
        "prunus.runtime.tasks.pose.people.PeopleFinder",
        "prunus.runtime.tasks.pose.tracking.tracker.PeopleTracker",
        "prunus.runtime.tasks.segmentation.segmenter.Segmenter",
        "prunus.runtime.tasks.codec.codec.SpeechCodec",
        "prunus.runtime.tasks.separation.separator.SpeechSeparator",
    ),
    "Prune": (
        "prunus.models.tokens.prune.prune", "prunus.models.tokens.plan.PruningPlan",
        "prunus.models.tokens.blocks.layouts.BlockLayout",
        "prunus.models.tokens.reducer.TokenReducer", "prunus.models.tokens.reducer.Place",
        "prunus.models.tokens.reducer.Reduced",
    ),
    "Errors": ("prunus.runtime.errors",),
}  # fmt: skip
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[\w-]+)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie nowhere in docs/."""
    from mkdocs.structure.files import File

    made = {page: (ROOT / name).read_text() for name, page in ROOT_PAGES.items()}
    made["reference/command-line.md"] = command_line()
    made["reference/python.md"] = python()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to where the site has the page; name a file of the repository that it has not."""
    known = {file.src_uri for file in files}
    # The pages of the root speak of docs/..., those of docs/ of ../...
    folder = "docs/" if page.file.src_uri not in {*ROOT_PAGES.values()} else ""

    def site(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        if "://" in target:
            return found[0]
        path = _plain(folder + target)
        uri = ROOT_PAGES.get(path, path.removeprefix("docs/"))
        if uri in known:
            return f"{picture}[{text}]({uri}{anchor or ''})"
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    if page.file.src_uri.startswith("reference/"):
        return markdown
    return _LINK.sub(site, markdown)


def _plain(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def command_line() -> str:
    """Return the reference of the command line."""
    lines = [
        "# Command line",
        "",
        "Every verb explains itself with `--help`; this page is made from the same declarations. "
        "All know `--json`, `--quiet` (no progress and no notes) and `--debug` (the whole trace of "
        "an error). Exit codes: 0 ok, 1 a check failed, 2 wrong usage or input, 3 this machine "
        "lacks something, 130 stopped.",
        "",
    ]
    for words, verb in verbs():
        lines += [f"## prunus {words}", "", verb.help, ""]
        options = verb.options_class()
        lines += [_prose(verb.rest()), ""]
        if options is not None and parameters(options):
            lines += [table(options), ""]
    return "\n".join(lines)


def verbs() -> Iterator[tuple[str, Verb]]:
    """Yield the words after ``prunus`` and the row of every verb and group."""

    def below(rows: Iterable[Verb], words: str) -> Iterator[tuple[str, Verb]]:
        for row in rows:
            yield f"{words}{row.name}", row
            yield from below(row.rows(), f"{words}{row.name} ")

    yield from below(build_app().rows.values(), "")


def _prose(text: str) -> str:
    """Return a verb's help as Markdown: what stands under ``\\b`` keeps its lines."""
    parts = []
    for part in inspect.cleandoc(text).split("\n\n"):
        if part.startswith("\b"):
            head, *lines = part.strip("\b\n ").splitlines()
            shown = inspect.cleandoc("\n".join(["", *lines]))
            parts.append(f"{head}\n\n```bash\n{shown}\n```" if lines else head)
        else:
            parts.append(part)
    return "\n\n".join(parts)


def python() -> str:
    """Return the reference of Python, which mkdocstrings fills in."""
    lines = [
        "# Python",
        "",
        "`import prunus` gives `load`, `open`, `prune`, `PruningPlan`, `ModelCard`, "
        "`BackendOptions`, `Session` and `PrunusError`, each imported on first use. The paths "
        "below are those to import the rest from.",
        "",
    ]
    for title, names in PYTHON.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += [f"::: {name}", ""]
    return "\n".join(lines)
