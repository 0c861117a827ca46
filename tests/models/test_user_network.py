"""Networks that a user's own function makes: found, called, and told from what is none."""

import sys

import pytest
import torch

from prunus.models.user_network import build_network, find_function
from prunus.runtime.errors import UsageError

SOURCE = """
import torch
from torch import nn

torch.rand(3)  # the module may draw; what it makes depends on the seed alone

def build():
    return nn.Linear(2, 2)

def numbers():
    return {}

ready = nn.Dropout()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return path


def test_a_function_of_a_file_or_of_a_module_of_this_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    monkeypatch.setattr("sys.path", [p for p in sys.path if p])
    torch.manual_seed(3)
    wanted = torch.nn.Linear(2, 2)
    for reference in (f"{file}:build", "nets:build"):
        network = build_network(reference, 3)
        assert torch.equal(network.weight, wanted.weight) and not network.training
    sys.modules.pop("nets")


def test_a_network_itself(file):
    network = build_network(f"{file}:ready")
    assert isinstance(network, torch.nn.Dropout) and not network.training


def test_what_is_no_network(file):
    with pytest.raises(UsageError, match="numbers returns dict; expected a torch module"):
        build_network(f"{file}:numbers")
    with pytest.raises(UsageError, match=r"has no 'biuld' \(did you mean 'build'"):
        find_function(f"{file}:biuld")
