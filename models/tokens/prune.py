"""`prune`: a copy of any transformer in which tokens are dropped at constant places.

The list of blocks is replaced by a list of one module that runs all of them. Blocks without a cut
run as they are; a block with one runs in parts, with the reducer between its attention and its MLP
(EViT's place, arXiv 2202.07800, section 3.2). No class is patched, the given network stays as it
was, and without a cut the copy's outputs are equal to the bit.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn

from prunus.models.tokens.blocks.halves import attend, feed
from prunus.models.tokens.blocks.layouts import (
    BlockLayout,
    block_list,
    example_input,
    find_layout,
    patch_grid,
    replace_blocks,
)
from prunus.models.tokens.blocks.stack import PrunedBlocks, find_pruned, uncut_again
from prunus.models.tokens.plan import PruningPlan, read_plan
from prunus.models.tokens.reducer import Place, Restore
from prunus.models.tokens.registry import build_reducers
from prunus.models.tokens.selection import require_choice
from prunus.runtime.errors import UsageError

# A block and its parts differ by the rounding of another order of sums; more is another formula.
_SAME = 1e-4


def prune(
    network: nn.Module,
    plan: str | PruningPlan,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
    layout: BlockLayout | None = None,
    grid: tuple[int, int] | None = None,
    restore: Restore | None = None,
) -> nn.Module:
    """Return a copy of a network in which tokens are dropped at constant places.

    Args:
        network: A transformer with a list of pre-norm blocks: of `transformers` (ViT, DeiT,
            DINOv2, CLIP and SigLIP vision towers, Whisper's encoder), of timm's form, EViTPose
            without cuts of its own, FreeCodec's decoder, or any with a `layout`. Runs in
            evaluation mode here; its mode is kept.
        plan: Which method keeps how many tokens after which block, e.g. ``evit:0.5@4``; see
            `prunus.models.tokens.plan`.
        example: Inputs of one call. May be left out for networks of `transformers` and for
            EViTPose.
        layout: Where the parts of a block are; for networks that are not in the table.
        grid: Rows and columns of the patches; (1, T) for audio. May be left out where the
            configuration tells them, or no method needs them.
        restore: What follows the blocks: ``none``: the K tokens that are left; otherwise all N
            again, see `TokenReducer.restore`. None: ``delta`` for networks that need all of them
            (EViTPose, FreeCodec's decoder), ``none`` for the others.

    Returns:
        A network of the same class. Methods with weights of their own start untrained.

    Raises:
        UsageError: a plan that does not fit, blocks that cannot be found or that are not what the
            layout says, or a network that has cuts already or whose number of tokens is not
            constant.

    Example:
        >>> from transformers import ViTConfig, ViTModel  # doctest: +SKIP
        >>> pruned = prune(ViTModel(ViTConfig()), "evit:128/64@4/8")  # doctest: +SKIP
    """
    if restore is not None:
        require_choice("restore", restore, get_args(Restore))
    if plan == "dense" or (isinstance(plan, PruningPlan) and not plan.blocks):
        return copy.deepcopy(network)
    return _pruned(network, plan, example, layout, grid=grid, restore=restore)


def uncut(network: nn.Module, example: Tensor | Sequence[Tensor] | None = None) -> nn.Module:
    """Return a copy of a network whose blocks run as `prune` runs them, all tokens kept.

    The dense network to compare pruned copies with: what an export of the class itself holds
    beside its blocks, such as a mask that hides nothing, is left out as it is of those.

    Args:
        network: As for `prune`, which also says what is raised.
        example: Inputs of one call.
    """
    return _pruned(network, PruningPlan("dense", (), ()), example, None)


def _pruned(
    network: nn.Module,
    plan: str | PruningPlan,
    example: Tensor | Sequence[Tensor] | None,
    layout: BlockLayout | None,
    *,
    grid: tuple[int, int] | None = None,
    restore: Restore | None = None,
) -> nn.Module:
    if (done := find_pruned(network)) is not None:
        raise UsageError(
            f"{type(network).__name__} is pruned already, by the plan '{done.plan.level}'.",
            "Prune the network that it was made from; a plan may name several cuts.",
        )
    twin = copy.deepcopy(network)
    layout = find_layout(twin, layout)
    restore = restore or layout.restore
    blocks = list(block_list(twin, layout))
    inputs = _inputs(network, example)
    with _evaluating(twin), torch.no_grad():
        expected, calls, beside = _record(twin, blocks, inputs)
        special = layout.special or 0
        _, length, dim = calls[0][0].shape
        tokens = length - special
        if tokens < 1:
            raise UsageError(
                f"{length} tokens enter the blocks of {type(network).__name__}, {special} of them "
                "special; expected some to prune."
            )
        plan = read_plan(plan, tokens) if isinstance(plan, str) else plan
        if grid is None:
            grid = patch_grid(twin, layout, tokens)
        elif grid[0] * grid[1] != tokens:
            raise UsageError(
                f"A grid of {grid[0]} x {grid[1]} was given; {tokens} patches enter the blocks of "
                f"{type(network).__name__}."
            )
        entry = Place(tokens, tokens, special, layout.class_token and special > 0, grid, dim)
        heads = [int(layout.part(block, layout.heads)) for block in blocks]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # methods with weights of their own start alike each time
            cuts = build_reducers(plan, entry, heads)
        for cut in cuts.values():
            cut.to(calls[0][0].device, calls[0][0].dtype)
        stack = PrunedBlocks(
            blocks, layout, cuts, restore=restore, plan=plan, entry=entry, beside=beside
        )
        _compare_parts(stack, calls)
        replace_blocks(twin, layout, [stack])
        _compare_whole(twin, stack, inputs, expected)
        _try(twin, inputs, restore)
    return twin


def _inputs(network: nn.Module, example: Tensor | Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    if isinstance(example, Tensor):
        return (example,)
    if example is not None:
        return tuple(example)
    made = example_input(network)
    if made is None:
        raise UsageError(
            f"The inputs of {type(network).__name__} are not known.",
            "Give an example: prune(network, plan, example=torch.zeros(1, 3, 224, 224)).",
        )
    return (made,)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module in network.modules():
            module.training = modes.get(module, network.training)


def _record(
    network: nn.Module, blocks: Sequence[nn.Module], inputs: tuple[Tensor, ...]
) -> tuple[Any, list[tuple[Tensor, Tensor]], tuple[None, ...] | None]:
    """Return the outputs of a call, the tokens that entered and left each block in turn, and a
    None for all that the last one gave beside them; None where that is tokens alone.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    beside: list[tuple[None, ...] | None] = [None]
    masked: list[str] = []

    def hear(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        entered, *rest = [*args, *kwargs.values()]
        masked.extend(type(module).__name__ for given in rest if isinstance(given, Tensor))
        calls.append((entered, out[0] if isinstance(out, tuple) else out))
        beside[0] = (None,) * (len(out) - 1) if isinstance(out, tuple) else None

    handles = [block.register_forward_hook(hear, with_kwargs=True) for block in blocks]
    name = type(network).__name__
    try:
        expected = network(*inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise UsageError(
            f"{name} does not run on the example {[list(i.shape) for i in inputs]}: "
            f"{_first_line(error)}.",
            "Give example=... of the right shapes.",
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    if masked:
        raise UsageError(
            f"{name} gives its blocks tensors beside the tokens (a mask, or positions), which "
            "would not fit fewer tokens.",
            "Prune a network whose blocks take tokens only.",
        )
    shapes = {tuple(tokens.shape) for call in calls for tokens in call}
    if len(calls) != len(blocks) or len(shapes) != 1 or calls[0][0].dim() != 3:
        raise UsageError(
            f"The blocks of {name} are run {len(calls)} times, on tokens of the shapes "
            f"{sorted(shapes)}; expected each of the {len(blocks)} once, on (batch, tokens, "
            "channels) of one shape.",
        )
    for number, ((_, left), (entered, _)) in enumerate(itertools.pairwise(calls)):
        if not torch.equal(left, entered):
            raise UsageError(
                f"{name} changes the tokens between the blocks {number} and {number + 1}; expected "
                "a plain loop over its blocks.",
            )
    return expected, calls, beside[0]


def _compare_parts(stack: PrunedBlocks, calls: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Refuse a layout whose parts do not make up the blocks that will run in parts."""
    cuts = stack._heard | {block for block, _ in stack.reducers()}
    first = min(cuts, default=len(stack.blocks))
    for number in range(first, len(stack.blocks)):
        block, (entered, own) = stack.blocks[number], calls[number]
        try:
            tokens, _ = attend(block, stack.layout, entered)
            made = tokens + feed(block, stack.layout, tokens)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"Block {number} ({type(block).__name__}) does not run in parts: "
                f"{_first_line(error)}.",
                "Give the paths of its parts with layout=BlockLayout(...).",
            ) from None
        scale = float((own - entered).abs().max()) or 1.0
        off = float((made - own).abs().max()) / scale
        if not off <= _SAME:
            raise UsageError(
                f"Block {number} ({type(block).__name__}) is not the sum of the parts that the "
                f"layout names: they differ by {off:.2g} of what the block adds.",
                "Such a block (rotary positions, a mask, post-norm, ...) cannot be pruned yet.",
            )


def _compare_whole(
    twin: nn.Module, stack: PrunedBlocks, inputs: tuple[Tensor, ...], expected: Any
) -> None:
    """Refuse a network that does not just run its blocks one after the other."""
    try:
        with uncut_again(stack):
            got = twin(*inputs)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise UsageError(
            f"{type(twin).__name__} does not run its blocks in a plain loop: {_first_line(error)}."
        ) from None
    pairs = zip(tensors_of(got), tensors_of(expected), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs):
        raise UsageError(
            f"{type(twin).__name__} does more with its blocks than run them in a row: without a "
            "cut its outputs already differ.",
        )


def _try(twin: nn.Module, inputs: tuple[Tensor, ...], restore: str) -> None:
    try:
        out = tensors_of(twin(*inputs))
    except (RuntimeError, IndexError) as error:
        way = "" if restore != "none" else " Restore the tokens: restore='scatter' or 'delta'."
        raise UsageError(
            f"What follows the blocks of {type(twin).__name__} does not run on fewer tokens: "
            f"{_first_line(error)}.",
            f"It may need all of them.{way}",
        ) from None
    if not all(torch.isfinite(o).all() for o in out if o.is_floating_point()):
        raise UsageError(f"The pruned {type(twin).__name__} gives infinite or undefined values.")


def tensors_of(out: Any) -> list[Tensor]:
    """Return the tensors of whatever a network returns."""
    if isinstance(out, Tensor):
        return [out]
    values = out.values() if hasattr(out, "values") else out
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        return []
    return [tensor for value in values for tensor in tensors_of(value)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
