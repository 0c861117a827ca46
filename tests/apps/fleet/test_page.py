"""The commands of docs/fleet.md, in their order."""

import re
import shlex
from pathlib import Path

from prunus.apps.fleet.receipt import VERDICTS

PAGE = Path(__file__).parents[3] / "docs" / "fleet.md"


def test_the_commands_of_the_page_run(store, prunus, tmp_path, monkeypatch) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert [kind for kind, _ in blocks] == ["bash"]
    monkeypatch.chdir(tmp_path)
    for line in blocks[0][1].replace("localhost:5000", store.host).splitlines():
        words = shlex.split(line, comments=True)
        if words:
            ran = prunus(*words[1:], "--quiet")
            assert words[0] == "prunus" and ran.code == 0, f"{line}\n{ran.err}"
    assert "<title>0 of 1 not ok</title>" in (tmp_path / "report.html").read_text()


def test_every_verdict_is_on_the_page() -> None:
    page = PAGE.read_text()
    assert all(f"| `{name}` | {meaning} |" in page for name, meaning in VERDICTS.items())
