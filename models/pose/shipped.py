"""EViTPose with the weights that ship, by the names that commands know."""

from __future__ import annotations

from typing import cast

from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.pose.heads import Head
from prunus.models.zoo import Entry, entries, load_checkpoint


def shipped_names() -> tuple[str, ...]:
    """Return the names of the networks, e.g. ``evitpose_tiny``."""
    return tuple(_rows())


def shipped_network(name: str) -> EViTPose:
    """Return a network of `shipped_names`, dense and in evaluation mode.

    Raises:
        PrunusError: its weights are not installed, or damaged.
    """
    row = _rows()[name]
    told = row.config
    head, joints = cast(Head, told["head"]), int(told["joints"])
    network = EViTPose(evitpose_config(str(told["variant"]), head=head, joints=joints))
    state = load_checkpoint(row.name)
    own = network.state_dict()
    network.load_state_dict({key: state[key].to(value.dtype) for key, value in own.items()})
    return network.eval()


def shipped_input(name: str) -> str:
    """Return the input of a network of `shipped_names` in the words of `--input`."""
    config = evitpose_config(str(_rows()[name].config["variant"]))
    return f"pixels:1x3x{config.height}x{config.width}"


def _rows() -> dict[str, Entry]:
    return {
        f"evitpose_{row.config['variant']}": row
        for row in entries()
        if row.kind == "checkpoint" and row.config.get("model") == "evitpose"
    }
