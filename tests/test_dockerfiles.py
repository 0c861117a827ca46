"""Every Dockerfile: pinned base, no root at the end, its install script, and hadolint's rules."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
by_name = pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)


def _instructions(path: Path) -> list[tuple[str, str]]:
    """Return (instruction, rest) with continued lines joined and comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word.upper(), rest)
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def test_the_targets_are_there() -> None:
    names = {p.name.removesuffix(".Dockerfile") for p in FILES}
    assert names == {"cpu", "tensorrt", "jetpack6", "triton"}


@by_name
def test_base_is_pinned_and_root_is_left(path) -> None:
    instructions = _instructions(path)
    bases = [rest for word, rest in instructions if word == "FROM"]
    pinned = re.compile(r"[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?")
    assert bases and all(pinned.fullmatch(base) for base in bases)
    assert not any("latest" in base for base in bases)
    users = [rest for word, rest in instructions if word == "USER"]
    # A number, since the host may not know the name; below 10000 it may belong to a host's user.
    assert users and int(users[-1]) >= 10000
    runs = "".join(rest for word, rest in instructions if word == "RUN")
    assert f"useradd --create-home --uid {users[-1]} " in runs
    program = {"triton.Dockerfile": "tritonserver"}.get(path.name, "prunus")
    assert [rest for word, rest in instructions if word == "ENTRYPOINT"] == [f'["{program}"]']
    assert not any(word == "ADD" for word, _ in instructions)


@by_name
def test_install_lines_are_the_script(path) -> None:
    script = f"docker/install_{path.name.removesuffix('.Dockerfile')}.sh"
    runs = [rest for word, rest in _instructions(path) if word == "RUN"]
    assert any(f"bash {script}" in run for run in runs), f"{path.name} does not run {script}"
    assert not any("pip install" in run for run in runs), "install lines belong into the script"
    text = (ROOT / script).read_text()
    assert "-c constraints.txt" in text and "set -euo pipefail" in text
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@by_name
def test_scripts_ask_for_extras_that_exist(path) -> None:
    script = ROOT / "docker" / f"install_{path.name.removesuffix('.Dockerfile')}.sh"
    metadata = (ROOT / "pyproject.toml").read_text()
    asked = re.search(r' \./models/prunus_models "\.\[([\w,-]+)\]"', script.read_text())
    assert asked is not None, "the models that ship come from the tree as well"
    for extra in asked[1].split(","):
        assert re.search(rf"^{extra} = \[", metadata, re.MULTILINE), extra


@by_name
def test_hadolint(path) -> None:
    found = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if found is None:
        pytest.skip("hadolint is not installed (extra dev)")
    run = subprocess.run([found, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_prometheus_watches_triton_and_both_answer_this_machine_alone() -> None:
    told = yaml.safe_load((ROOT / "docker" / "triton.compose.yaml").read_text())
    services = told["services"]
    triton, prometheus = services["triton"], services["prometheus"]
    assert re.fullmatch(r"[\w/]+:v\d+\.\d+\.\d+", prometheus["image"])
    assert (ROOT / triton["build"]["dockerfile"]).is_file() and triton["build"]["context"] == "."
    ports = [port for service in services.values() for port in service["ports"]]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    [source] = [one["source"] for one in prometheus["configs"]]
    [job] = yaml.safe_load(told["configs"][source]["content"])["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in services and port == "8002"  # Triton's own port for metrics
    [where] = triton["volumes"]
    assert triton["command"] == [f"--model-repository={where.split(':')[1]}"]
