"""The documentation site: every verb and option, links that lead somewhere, nothing left behind."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)


def test_the_reference_has_every_verb_with_its_options_and_examples() -> None:
    text = pages.command_line()
    heads = re.findall(r"^## prunus (.+)$", text, re.M)
    assert len(heads) == len(set(heads)) > 30
    assert {"run pose", "export evitpose", "serve http", "card add", "doctor"} <= set(heads)
    pose = text.partition("## prunus run pose\n")[2].partition("\n## ")[0]
    assert "| `--show-tokens` |" in pose and "```bash\nprunus run pose --source" in pose
    assert "\b" not in text


def test_links_lead_to_pages_of_the_site_or_name_the_file() -> None:
    class File:
        def __init__(self, uri: str) -> None:
            self.src_uri = uri

    class Page:
        file = File("pose.md")

    files = [File(uri) for uri in ("pose.md", "live.md", "index.md", "images/a.jpg")]
    text = "[l](live.md#how) ![a](images/a.jpg) [r](../README.md) [`b.py`](../models/b.py) [o](http://o)"
    assert pages.on_page_markdown(text, Page, None, files) == (
        "[l](live.md#how) ![a](images/a.jpg) [r](index.md) b.py (`models/b.py`) [o](http://o)"
    ).replace("b.py (", "`b.py` (")
    Page.file = File("index.md")
    text = "[l](docs/live.md) ![a](docs/images/a.jpg) [c](Makefile)"
    assert pages.on_page_markdown(text, Page, None, files) == (
        "[l](live.md) ![a](images/a.jpg) c (`Makefile`)"
    )


@pytest.mark.slow
def test_the_site_builds_and_every_page_is_in_it(tmp_path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra docs)")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed (extra docs)")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path)],
        cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    named = set(re.findall(r": ([\w/-]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert {p.stem for p in ROOT.glob("docs/*.md")} <= named
    assert all((tmp_path / f"{name}.html").is_file() for name in named)
    text = (tmp_path / "reference" / "python.html").read_text()
    assert "prunus.api.load" in text and "shapes" in text
