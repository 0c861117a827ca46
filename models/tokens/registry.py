"""Which methods reduce tokens: one row each, one small file each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from prunus.models.tokens.plan import PruningPlan, split_method
from prunus.models.tokens.reducer import Place, TokenReducer
from prunus.runtime import references
from prunus.runtime.errors import UsageError, nearest

Mechanism = Literal["attention", "similarity", "transformation", "query", "control"]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to reduce tokens.

    Attributes:
        name: Word in a plan.
        reducer: ``module:Class``, a `TokenReducer` whose keyword arguments are its options.
        mechanism: What it goes by; ``control`` for plain selections.
        source: Paper, or that it is a plain rival.
        help: What it does, one sentence.
        trained: Useless until the network is trained with it: weights of its own, or an order that
            only training gives.
    """

    name: str
    reducer: str
    mechanism: Mechanism
    source: str
    help: str
    trained: bool = False

    def build(self, place: Place, options: dict[str, Any]) -> TokenReducer:
        """Return the reducer for a place.

        Raises:
            UsageError: an option that it does not have, or a place where it cannot stand.
        """
        kind: type[TokenReducer] = references.load(self.reducer)
        reducer: TokenReducer = kind(place, **_typed(self.name, kind, options))
        return reducer


_FOLDER = "prunus.models.tokens.methods"


def _row(name: str, place: str, source: str, help: str, trained: bool = False) -> Method:
    """Return a row; `place` is ``mechanism.module:Class``."""
    mechanism = cast(Mechanism, place.partition(".")[0])
    return Method(name, f"{_FOLDER}.{place}", mechanism, source, help, trained)


METHODS: tuple[Method, ...] = (
    _row(
        "evit", "attention.evit:Evit", "arXiv 2202.07800",
        "Keep what the class token looks at; the rest becomes one token.",
    ),
    _row(
        "joint", "attention.joint:JointTokenReducer", "arXiv 2209.08194, 2503.00232",
        "Keep what the special tokens (joints) look at.",
    ),
    _row(
        "vtc_cls", "attention.vtc_cls:VtcCls", "arXiv 2412.05819",
        "Keep what the class token looked at in several blocks.",
    ),
    _row(
        "hiprune", "attention.hiprune:HiPrune", "arXiv 2508.00553",
        "Keep anchors of a middle block with their neighbours, then the best of this one.",
    ),
    _row(
        "vscan", "attention.vscan:VScan", "arXiv 2505.22654",
        "Keep the best of each window, then the best of all; merge the rest into them.",
    ),
    _row(
        "btp", "attention.btp:BalancedPruning", "arXiv 2505.22038",
        "Keep patches spread over the grid, a constant, then the best of the rest.",
    ),
    _row(
        "globalcom2", "attention.globalcom2:GlobalCom2", "arXiv 2501.05179",
        "Share one budget among the tiles of a large picture, guided by its thumbnail.",
    ),
    _row(
        "ats", "attention.ats:AdaptiveSampling", "arXiv 2111.15667",
        "Sample patches at equal steps of their summed scores.",
    ),
    _row(
        "top", "attention.top:TopScore", "arXiv 2202.07800, 2111.15667, 2501.05179",
        "Keep the highest of a score: class, logit, value or received.",
    ),
    _row(
        "tome", "similarity.tome:ToMe", "arXiv 2210.09461",
        "Merge the most similar pairs of an alternating split, by size.",
    ),
    _row(
        "aim", "similarity.aim:Aim", "arXiv 2412.03248",
        "Merge the most similar pairs round by round, plain means.",
    ),
    _row(
        "bat", "similarity.bat:Bat", "arXiv 2211.11315",
        "Merge pairs of attentive patches and clusters of the others.",
    ),
    _row(
        "token_transforming", "similarity.token_transforming:TokenTransforming",
        "arXiv 2506.05709",
        "Spread every patch softly over the most important ones.",
    ),
    _row(
        "todre", "similarity.todre:ToDRE", "arXiv 2505.18757",
        "Keep tokens far from one another, one after the other (at most 64).",
    ),
    _row(
        "dart", "similarity.dart:Dart", "arXiv 2502.11494",
        "Keep a few pivots and what resembles them least.",
    ),
    _row(
        "cdpruner", "similarity.cdpruner:CDPruner", "arXiv 2506.10967",
        "Keep a relevant and diverse set, one after the other (at most 64).",
    ),
    _row(
        "vqtoken", "similarity.vqtoken:VQToken", "arXiv 2503.16980",
        "Replace tokens by the means of K clusters.",
    ),
    _row(
        "ltfr", "similarity.ltfr:AdjacentFrames", "arXiv 2501.17391",
        "Keep the first frame of a clip and what changed most in each other.",
    ),
    _row(
        "mergedna", "similarity.mergedna:WindowedMerge", "arXiv 2511.14806",
        "Merge similar neighbours of a sequence (frames of sound) within short windows.",
    ),
    _row(
        "laco", "transformation.laco:LaCo", "arXiv 2507.02279",
        "Space to channel and an MLP, plus the mean of each cell.", trained=True,
    ),
    _row(
        "wico", "transformation.wico:WiCo", "arXiv 2504.04024",
        "Concatenate each cell, one linear layer.", trained=True,
    ),
    _row(
        "stf", "transformation.stf:Stf", "arXiv 2506.07138",
        "Fuse several levels of each patch, then each cell.", trained=True,
    ),
    _row(
        "wtc", "transformation.wtc:Wtc", "arXiv 2511.21150",
        "A mean of each cell, weighted per channel by what is in it.", trained=True,
    ),
    _row(
        "pvc", "transformation.pvc:Pvc", "arXiv 2412.09613",
        "Unshuffle each cell and an MLP.", trained=True,
    ),
    _row(
        "tokenpacker", "transformation.tokenpacker:TokenPacker", "arXiv 2407.02392",
        "One coarse query a cell looks at its patches on several levels.", trained=True,
    ),
    _row(
        "prefix", "transformation.prefix:Prefix", "arXiv 2501.10064, 2502.13967, 2411.02393",
        "The first K tokens, for tokens that were trained so.", trained=True,
    ),
    _row(
        "tokenlearner", "query.tokenlearner:TokenLearner", "arXiv 2106.11297",
        "Weighted means of all patches by a learned MLP; TokenFuser is its way back.",
        trained=True,
    ),
    _row(
        "flash", "query.flash:Flash", "arXiv 2505.12728",
        "Weighted means of all patches by learned queries.", trained=True,
    ),
    _row(
        "llamavid", "query.llamavid:LlamaVid", "arXiv 2311.17043",
        "One token by a stored task vector, and the mean of the patches.", trained=True,
    ),
    _row(
        "stvit", "query.stvit:StVit", "arXiv 2303.08810",
        "A few semantic tokens per window, made by attention; with recovery.", trained=True,
    ),
    _row(
        "wle", "query.wle:Wle", "arXiv 2503.16660",
        "Keep what a learned selector says the rest can be rebuilt from.", trained=True,
    ),
    _row(
        "supertoken", "query.supertoken:SuperToken", "arXiv 2211.11167",
        "Soft clusters of patches around each cell.",
    ),
    _row(
        "random", "control.random:RandomSelection", "plain rival", "Keep patches drawn once.",
    ),
    _row(
        "strided", "control.strided:StridedSelection", "plain rival",
        "Keep evenly spaced patches in raster order.",
    ),
    _row(
        "checkerboard", "control.checkerboard:Checkerboard", "plain rival",
        "Keep one colour of a checkerboard.",
    ),
    _row(
        "centre", "control.centre:CentreSelection", "plain rival",
        "Keep the middle of the picture.",
    ),
    _row(
        "average_pool", "control.average_pool:AveragePool", "plain rival",
        "Average equal cells of the grid.",
    ),
)  # fmt: skip


def find_method(name: str) -> Method:
    """Return the row of a name; raises UsageError for another."""
    rows = {method.name: method for method in METHODS}
    if name not in rows:
        raise UsageError(
            f"Unknown method '{name}' of token reduction{nearest(name, list(rows))}.",
            f"Choose one of {', '.join(rows)}.",
        )
    return rows[name]


def method_table() -> str:
    """Return the methods as rows of a Markdown table: name, mechanism, what it does, source."""
    rows = ["| method | goes by | what it does | source |", "| --- | --- | --- | --- |"]
    for row in METHODS:
        trained = " Has weights of its own: train the network with it." if row.trained else ""
        told = f"{row.help}{trained}"
        rows.append(f"| `{row.name}` | {row.mechanism} | {told} | {row.source} |")
    return "\n".join(rows)


def build_reducer(method: str, place: Place) -> TokenReducer:
    """Return the reducer of a method in words, e.g. ``evit(merge=drop)``, for a place.

    Raises:
        UsageError: an unknown method or option, or a place where it cannot stand.
    """
    name, options = split_method(method)
    return find_method(name).build(place, options)


def build_reducers(
    plan: PruningPlan, entry: Place, heads: Sequence[int]
) -> dict[int, TokenReducer]:
    """Return the reducers of a plan by block.

    Args:
        plan: The cuts; without methods, ``evit`` where there is a class token, else
            ``top(by=received)``, which needs neither that nor a grid.
        entry: The place in front of all blocks.
        heads: Attention heads of each block.

    Raises:
        UsageError: a method that cannot stand where the plan puts it.
    """
    plan.check(entry.tokens, len(heads))
    default = "evit" if entry.class_token else "top(by=received)"
    methods = plan.methods or (default,) * len(plan.blocks)
    cuts: dict[int, TokenReducer] = {}
    place = entry
    for block, keep, method in zip(plan.blocks, plan.keep, methods, strict=True):
        cut = build_reducer(method, replace(place, keep=keep, heads=heads[block], block=block))
        # A level is what left a block; that of this one is not there yet.
        for read in (*cut.reads_attention, *(level + 1 for level in cut.reads_levels)):
            if not place.since <= read <= block:
                raise UsageError(
                    f"Method '{method}' at block {block} reads blocks {cut.reads_attention} and "
                    f"levels {cut.reads_levels}; its tokens are the same from block "
                    f"{place.since} on.",
                    "Let it read later ones, or cut there later.",
                )
        place = replace(place, tokens=keep, keep=keep, grid=cut.grid, since=block + 1)
        cuts[block] = cut
    return cuts


def _typed(name: str, kind: type[TokenReducer], options: dict[str, Any]) -> dict[str, Any]:
    """Return options as the types that the class declares."""
    known = {
        p.name: p
        for p in inspect.signature(kind).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    hints = get_type_hints(kind.__init__)
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known:
            raise UsageError(
                f"Method '{name}' has no option '{key}'{nearest(key, list(known))}.",
                f"It has: {', '.join(known) or 'none'}.",
            )
        values[key] = _value(name, key, value, hints[key])
    return values


def _value(method: str, key: str, value: Any, hint: Any) -> Any:
    if not isinstance(value, str) or hint is str:
        return value
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        wanted = f"one of {', '.join(map(str, get_args(hint)))}"
    elif hint is bool:
        if value in ("true", "false"):
            return value == "true"
        wanted = "true or false"
    else:
        kinds = [kind for kind in (get_args(hint) or (hint,)) if kind in (int, float)]
        for kind in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
        wanted = "a whole number" if kinds == [int] else "a number"
    raise UsageError(f"Option '{key}' of method '{method}' is '{value}'; expected {wanted}.")
