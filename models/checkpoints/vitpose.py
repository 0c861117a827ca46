"""Strict import of public ViTPose and ViTPose++ checkpoints into EViTPose.

What has to be changed besides names (ViTPose, arXiv 2204.12484; ViTPose++, arXiv 2212.04246):

* position slot 0 is an old class token's, which ViTPose adds to *every* patch: folded in;
* ++ files share the first 3/4 of each MLP's output rows between data sets and keep the last 1/4
  per data set ("experts"): joined for one data set, with that data set's head;
* a table of positions for another grid is resampled once, here.

Joint tokens, and heads that ViTPose lacks, have no source: they keep their initial values and are
reported. Anything else that does not fit is refused, all of it in one message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from prunus.models.checkpoints.fit import require_fit, save_imported
from prunus.models.checkpoints.layouts import Layout, detect_layout, rename
from prunus.models.checkpoints.read import read_checkpoint, unwrap
from prunus.models.checkpoints.registry import Importer, ImportOptions, fresh_note
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig, evitpose_config
from prunus.models.pose.heads import Head
from prunus.runtime.errors import UsageError

# Data sets of ViTPose++ in the order of its experts, with their joint counts.
DATASETS = (
    ("coco", 17), ("aic", 14), ("mpii", 16), ("ap10k", 17), ("apt36k", 17), ("wholebody", 133),
)  # fmt: skip
_HEAD = "keypoint_head."


@dataclass(frozen=True, slots=True)
class ImportedPose:
    """A checkpoint as EViTPose reads it.

    Attributes:
        config: The network.
        state: Complete state dict of `EViTPose(config)`, float32.
        layout: Layout that was found.
        fresh: Parameters that the file has no source for; they are freshly initialised.
        dropped: Names in the file that were not needed.
    """

    config: EViTPoseConfig
    state: dict[str, Tensor]
    layout: str
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]


def convert_vitpose(
    checkpoint: Mapping[str, object], config: EViTPoseConfig, *, expert: int = 0, seed: int = 0
) -> ImportedPose:
    """Turn a ViTPose state dict of any public layout into one of EViTPose.

    Args:
        checkpoint: What the file held, wrappers included.
        config: The network to fill; a head other than classic and simple stays fresh.
        expert: Data set of a ++ checkpoint, as an index of `DATASETS`; 0 is COCO.
        seed: Seed of what stays fresh.

    Raises:
        UsageError: unknown layout, or names or shapes that do not fit, all of them listed.
    """
    tensors = unwrap(checkpoint)
    layout = detect_layout(list(tensors))
    state, dropped = rename(tensors, layout)
    state, unused = _choose_expert(state, config, expert)
    if config.head not in ("classic", "simple"):
        unused += [name for name in state if name.startswith(_HEAD)]
    state = {name: value for name, value in state.items() if name not in unused}
    if "pos_embed" in state:
        state["pos_embed"] = fit_positions(state["pos_embed"], config)
    return _fill(state, config, layout, (*dropped, *unused), seed)


def import_checkpoint(
    checkpoint: str | Path,
    target: str | Path,
    *,
    variant: str = "small",
    head: Head | None = None,
    joints: int | None = None,
    expert: int = 0,
    seed: int = 0,
) -> ImportedPose:
    """Convert a ViTPose file into a safetensors file of EViTPose.

    Args:
        checkpoint: ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` in any public layout.
        target: The file to write; it appears only when complete.
        variant: ``small`` or ``base``; the file must be of that size.
        head: Head of the network; None takes the one the file has.
        joints: Joint count; None takes the chosen data set's.
        expert: Data set of a ++ checkpoint, as an index of `DATASETS`; 0 is COCO.
        seed: Seed of what stays fresh.

    Raises:
        ArtifactError: a file that cannot be read.
        UsageError: a checkpoint that does not fit.
    """
    _check_expert(expert)
    tensors = read_checkpoint(checkpoint)
    joints = joints or (DATASETS[expert][1] if expert else 17)
    config = evitpose_config(variant, head=head, joints=joints)
    if head is None:
        config = replace(config, head=_head_of(tensors, config.head))
    imported = convert_vitpose(tensors, config, expert=expert, seed=seed)
    _save(imported, Path(checkpoint), Path(target), expert)
    return imported


def fit_positions(table: Tensor, config: EViTPoseConfig) -> Tensor:
    """Return position codes (1, rows * columns, D) of the network's grid.

    Args:
        table: (1, slots, D); one slot more than patches means that slot 0 belonged to a class
            token and is added to all others, as ViTPose does when it runs.
        config: The network.

    Raises:
        UsageError: the number of slots belongs to no grid.
    """
    slots = table.shape[1] if table.dim() == 3 else 0
    for special in (1, 0) if slots != config.patches else (0,):
        grid = _grid_of(slots - special, config)
        if grid is None:
            continue
        patches = table[:, 1:] + table[:, :1] if special else table
        return patches if grid == config.grid else resample(patches, grid, config.grid)
    rows, columns = config.grid
    raise UsageError(
        f"The checkpoint's position table has the shape {list(table.shape)}, which is no grid; "
        f"expected [1, {rows * columns} or {rows * columns + 1}, {config.dim}]."
    )


def _grid_of(count: int, config: EViTPoseConfig) -> tuple[int, int] | None:
    """Return the grid with that many patches: the network's, its shape scaled, or a square."""
    rows, columns = config.grid
    if count == rows * columns:
        return config.grid
    if count < 1:
        return None
    scaled = round((count * rows / columns) ** 0.5)
    if scaled and count % scaled == 0 and scaled * columns == (count // scaled) * rows:
        return scaled, count // scaled
    side = round(count**0.5)
    return (side, side) if side * side == count else None


def resample(patches: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return position codes (1, N, D) of one grid (rows, columns) for another, bicubically."""
    image = patches.reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(image, size=new, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).contiguous()


def _check_expert(expert: int) -> None:
    if not 0 <= expert < len(DATASETS):
        known = ", ".join(f"{i} {name}" for i, (name, _) in enumerate(DATASETS))
        raise UsageError(f"Got data set {expert}; expected one of: {known}.")


def _choose_expert(
    state: dict[str, Tensor], config: EViTPoseConfig, expert: int
) -> tuple[dict[str, Tensor], list[str]]:
    """Join each MLP with one data set's expert and take that data set's head."""
    _check_expert(expert)
    name = DATASETS[expert][0]
    experts = [n for n in state if ".mlp.experts." in n]
    heads = [n for n in state if n.startswith("associate_keypoint_heads.")]
    if not experts and expert:
        raise UsageError(
            f"Data set {expert} ({name}) was asked for, but the checkpoint has no experts.",
            "It is a single-data-set file: leave the choice at 0.",
        )
    joined = dict(state)
    for key in experts:
        found = re.fullmatch(rf"(blocks\.\d+\.mlp\.)experts\.{expert}\.(weight|bias)", key)
        shared = f"{found[1]}fc2.{found[2]}" if found else ""
        if shared in state and state[shared].shape[1:] == state[key].shape[1:]:
            joined[shared] = torch.cat((state[shared], state[key]))
    if expert and config.head in ("classic", "simple"):
        joined = _take_head(joined, f"associate_keypoint_heads.{expert - 1}.", name)
    final = DATASETS[expert][1]
    for part in ("weight", "bias"):
        key = f"{_HEAD}final_layer.{part}"
        if expert and key in joined:  # the file pads every head to the largest joint set
            joined[key] = joined[key][:final]
    return joined, experts + heads


def _take_head(state: dict[str, Tensor], prefix: str, dataset: str) -> dict[str, Tensor]:
    own = {n: v for n, v in state.items() if n.startswith(prefix)}
    if not own:
        raise UsageError(
            f"The checkpoint has no head for the data set '{dataset}' ({prefix}*).",
            "Choose data set 0, or a head that is trained anew (subpixel, token, regression).",
        )
    kept = {n: v for n, v in state.items() if not n.startswith(_HEAD)}
    return kept | {_HEAD + n.removeprefix(prefix): v for n, v in own.items()}


def _head_of(tensors: Mapping[str, Tensor], otherwise: Head) -> Head:
    if any("deconv" in name for name in tensors):
        return "classic"
    final = [n for n in tensors if re.search(r"head\.(final_layer|conv)\.weight$", n)]
    return "simple" if final else otherwise


def _fill(
    state: dict[str, Tensor],
    config: EViTPoseConfig,
    layout: Layout,
    dropped: tuple[str, ...],
    seed: int,
) -> ImportedPose:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = EViTPose(config).state_dict()
    fresh = {name for name in own if name not in state and _may_be_fresh(name, state, config)}
    title = (
        f"EViTPose-{config.variant} with the {config.head} head and {config.joints} joints, read "
        f"as {layout.name}"
    )
    require_fit(own, state, title, fresh=fresh, advice=lambda wrong: _advice(wrong, state))
    complete = {n: state.get(n, v).to(v.dtype).contiguous() for n, v in own.items()}
    named = tuple(sorted(n for n in fresh if not n.endswith("num_batches_tracked")))
    return ImportedPose(config, complete, layout.name, named, dropped)


def _may_be_fresh(name: str, state: Mapping[str, Tensor], config: EViTPoseConfig) -> bool:
    if name in ("joint_tokens", "mask_token") or name.endswith("num_batches_tracked"):
        return True
    headless = not any(n.startswith(_HEAD) for n in state)
    return name.startswith(_HEAD) and headless


def _advice(wrong: list[str], state: Mapping[str, Tensor]) -> str:
    final = f"{_HEAD}final_layer.bias"
    if final in wrong:
        return f"Its head has {len(state[final])} joints: ask for that many, or for another head."
    if "patch_embed.bias" in wrong:
        return f"Its tokens have {len(state['patch_embed.bias'])} channels: choose another variant."
    return "Choose the variant and the head that the file was trained with."


def _save(imported: ImportedPose, source: Path, target: Path, expert: int) -> None:
    about = {
        "dataset": DATASETS[expert][0],
        "fresh": imported.fresh,
        "head": imported.config.head,
        "joints": imported.config.joints,
        "layout": imported.layout,
        "variant": imported.config.variant,
    }
    save_imported(imported.state, source, target, about)


def read_in(
    checkpoint: Path, target: Path, importer: Importer, options: ImportOptions
) -> tuple[str, str]:
    """Import a file for `prunus.models.checkpoints.registry`."""
    variant = options.variant or "small"
    imported = import_checkpoint(
        checkpoint, target, variant=variant, head=options.head, expert=options.expert
    )
    head = imported.config.head
    return (
        f"layout '{imported.layout}' with head {head}{fresh_note(imported.fresh)}",
        f"evitpose --variant {variant} --head {head} --checkpoint {target}",
    )
