"""The pages name what exists: paths, modules, their attributes, verbs and links."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from prunus.apps.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*.md")])
TOPS = "apps|benchmarks|docker|docs|export|models|runtime|tests|.ci"
# Paths end like files or folders; the folder of a program that is unpacked from elsewhere does not
# begin with one of ours.
PATH = re.compile(rf"(?<![\w/.-])((?:{TOPS})/[\w./-]*\w/?)(?![\w*-])")
MODULE = re.compile(
    r"(?:\bprunus\.|-m (?=benchmarks))((?:apps|benchmarks|export|models|runtime)(?:\.\w+)*)"
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([\w-]+))?\)")


def _at(page: Path, text: str, start: int) -> str:
    return f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, start) + 1}"


def _parts_of(name: str) -> bool:
    """Tell whether a dotted name is a module, or an attribute that its source spells."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        base = ROOT.joinpath(*words[:count])
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if path.is_file():
            rest = words[count:]
            return not rest or re.search(rf"\b{rest[0]}\b", path.read_text()) is not None
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paths_and_modules_of_a_page_exist(page) -> None:
    text, wrong = page.read_text(), []
    for found in PATH.finditer(text):
        name = found[1]
        if not (ROOT / name).exists() and not any(ROOT.glob(f"{name}*")):
            wrong.append(f"{_at(page, text, found.start())}: no {name}")
    for found in MODULE.finditer(text):
        if not _parts_of(found[1]):
            wrong.append(f"{_at(page, text, found.start())}: no module {found[1]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_of_a_page_lead_somewhere(page) -> None:
    text, wrong = page.read_text(), []
    for found in LINK.finditer(text):
        target, anchor = found.groups()
        if "://" in target:
            continue
        path = page.parent / target
        if not path.exists():
            wrong.append(f"{_at(page, text, found.start())}: no {target}")
        elif anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
            slugs = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in heads}
            if anchor not in slugs:
                wrong.append(f"{_at(page, text, found.start())}: no heading {anchor}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_imports_in_examples_find_their_names(page) -> None:
    wrong = []
    lines = re.findall(r"^from (prunus[\w.]+) import ([\w, ]+)$", page.read_text(), re.M)
    for module, names in lines:
        spec = importlib.util.find_spec(module)
        source = Path(spec.origin).read_text() if spec and spec.origin else ""
        wrong += [f"{module}: no {n.strip()}" for n in names.split(",")
                  if not re.search(rf"\b{n.strip()}\b", source)]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_the_search_finds_what_is_missing() -> None:
    assert PATH.search("see `models/gone.py`.")[1] == "models/gone.py"
    assert PATH.search("face_recognition-1.3.0/tests/test_images") is None
    assert not _parts_of("runtime.gone") and not _parts_of("runtime.errors.Gone")
    assert MODULE.search("python -m benchmarks.gone --cpu")[1] == "benchmarks.gone"
    assert _parts_of("runtime.errors.PrunusError") and _parts_of("runtime.errors")


@pytest.mark.parametrize(
    ("half", "files"),
    [
        (
            "An ONNX file that you already have",
            {"outputs.npz", "tiny.onnx", "shares.json", "joints.json"},
        ),
        ("A PyTorch network, its tokens pruned", {"networks.py", "vit.onnx"}),
    ],
)
def test_blocks_of_your_own_network_run(half, files, tmp_path, monkeypatch, capfd) -> None:
    """Run the blocks of a half of the page in their order, as a reader would, in one process."""
    page = (ROOT / "docs" / "your-own-network.md").read_text()
    text = page.partition(f"## {half}")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```", text, re.M | re.S)
    assert {kind for kind, _ in blocks} == {"python", "bash"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PRUNUS_CACHE_DIR", str(tmp_path / "cache"))
    for kind, block in blocks:
        if kind == "python" and (name := re.match(r"# (\w+\.py)\n", block)):
            (tmp_path / name[1]).write_text(block)
        elif kind == "python":
            exec(compile(block, "your-own-network.md", "exec"), {})
        else:
            for line in block.splitlines():
                program, *words = shlex.split(line)
                assert program == "prunus"
                assert main(words) == 0, f"{line}\n{capfd.readouterr().err}"
    assert files <= {path.name for path in tmp_path.iterdir()}


def test_the_page_of_methods_is_the_registry() -> None:
    from prunus.models.tokens.registry import method_table

    page = (ROOT / "docs" / "token-reduction.md").read_text()
    assert f"\n\n{method_table()}\n" in page, f"put this into the page:\n{method_table()}"
    assert page.count("| `") == method_table().count("| `"), "a row that no method has"


def test_targets_named_in_pages_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for name in re.findall(r"(?:^ +|`)make ([a-z-]+)", page.read_text(), re.M):
            assert name in targets, f"{page.name}: make {name}"
