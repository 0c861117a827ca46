"""Prune networks of `transformers`, of timm's form and foreign ones: same class, fewer tokens."""

import copy

import pytest
import torch
from torch import nn

from prunus.models.tokens.blocks.halves import attend, counted, feed
from prunus.models.tokens.blocks.layouts import BlockLayout
from prunus.models.tokens.blocks.stack import pruned_blocks, reductions
from prunus.models.tokens.plan import PruningPlan
from prunus.models.tokens.prune import prune, uncut
from prunus.models.tokens.reducer import assignment, put_tokens
from prunus.runtime.errors import UsageError
from tests.models.tokens.networks import FAMILIES, PlainVit, build, pixels


def _run(network, x):
    with torch.no_grad():
        out = network(x)
    return out.last_hidden_state if hasattr(out, "last_hidden_state") else out


@pytest.mark.parametrize("name", FAMILIES)
def test_without_a_cut_outputs_are_equal_to_the_bit(name):
    network = build(name)
    for plan in ("dense", PruningPlan("p", (), ())):
        twin = prune(network, plan)
        assert twin is not network and type(twin) is type(network)
        assert torch.equal(_run(twin, pixels(name)), _run(network, pixels(name)))


@pytest.mark.parametrize("name", FAMILIES)
def test_all_tokens_kept_is_the_network_to_the_bit_and_exports_without_a_mask(name):
    network = build(name)
    twin = uncut(network, pixels(name))
    assert torch.equal(_run(twin, pixels(name)), _run(network, pixels(name)))
    assert not list(pruned_blocks(twin).reducers())
    graph = torch.export.export(twin, (pixels(name),)).graph
    attention = [n for n in graph.nodes if "scaled_dot_product_attention" in str(n.target)]
    masks = [n.kwargs.get("attn_mask") or (n.args[3] if len(n.args) > 3 else None)
             for n in attention]  # fmt: skip
    assert attention and not any(masks)


@pytest.mark.parametrize("restore", ["none", "delta"])
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_that_are_left(name, restore):
    network, x = build(name), pixels(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    full = _run(network, x)
    twin = prune(network, "tome:0.75@1,tome:0.6@2", restore=restore)
    special = pruned_blocks(twin).layout.special
    tokens = full.shape[1] - special
    with reductions(twin) as seen:
        got = _run(twin, x)
    first = -(-tokens * 3 // 4)
    second = -(-first * 6 // 10)
    assert [seen[1].x.shape[1], seen[2].x.shape[1]] == [special + first, special + second]
    assert got.shape[1] == (special + second if restore == "none" else full.shape[1])
    assert got.isfinite().all() and type(twin) is type(network)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert torch.equal(_run(network, x), full)


def test_equals_the_blocks_written_out():
    """One cut by EViT in a DINOv2 with registers, restored by scattering, against plain code."""
    name = "dinov2-registers"
    network, x = build(name), pixels(name)
    twin = prune(network, "evit(merge=drop):20@1", restore="scatter")
    layout = pruned_blocks(twin).layout
    assert layout.special == 5
    with torch.no_grad():
        tokens = network.embeddings(x)
        for number, block in enumerate(network.encoder.layer):
            if number != 1:
                tokens = block(tokens)
                continue
            normed = block.norm1(tokens)
            heads = lambda t: t.unflatten(-1, (2, -1)).transpose(1, 2)  # noqa: E731
            query = heads(block.attention.q_proj(normed))
            key = heads(block.attention.k_proj(normed))
            weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
            score = weights.mean(1)[:, 0, 5:]
            value = heads(block.attention.v_proj(normed))
            mixed = block.attention.o_proj((weights @ value).transpose(1, 2).flatten(2))
            tokens = tokens + block.layer_scale1(mixed)
            full = tokens
            kept = score.topk(20).indices.sort().values
            rows = torch.gather(full[:, 5:], 1, kept[..., None].expand(-1, -1, 32))
            tokens = torch.cat((full[:, :5], rows), 1)
            tokens = tokens + block.layer_scale2(block.mlp(block.norm2(tokens)))
        grid = put_tokens(full[:, 5:], kept, tokens[:, 5:])
        expected = network.layernorm(torch.cat((tokens[:, :5], grid), 1))
    torch.testing.assert_close(_run(twin, x), expected, rtol=1e-4, atol=1e-5)


def test_merged_tokens_are_looked_at_as_often_as_they_stand_for():
    """log(size) in the logits: a token of weight 2 counts like two equal tokens."""
    network = build("vit")
    block, layout = network.layers[0], pruned_blocks(prune(network, "tome:40@1")).layout
    tokens = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(3))
    twice = torch.cat((tokens, tokens[:, 4:5]), 1)
    size = torch.ones(1, 9)
    size[0, 4] = 2
    with torch.no_grad():
        heavy, _ = attend(block, layout, tokens, counted(size))
        doubled, _ = attend(block, layout, twice)
    torch.testing.assert_close(heavy, doubled[:, :9])


def test_sizes_multiply_over_cuts():
    network, x = build("vit"), pixels("vit")
    twin = prune(network, "tome:40@0,tome:25@1,evit(merge=drop):10@2")
    with reductions(twin) as seen:
        _run(twin, x)
    assert torch.allclose(seen[0].size.sum(1), torch.tensor(64.0))
    assert torch.allclose(seen[1].size.sum(1), torch.tensor(64.0))
    chain = assignment(seen[1], 40) @ assignment(seen[0], 64)
    assert torch.allclose(chain.sum(2), torch.ones(2, 25), atol=1e-6)


def test_a_fused_token_stands_for_all_that_it_took():
    twin = prune(build("vit"), "tome:40@0,evit:11@1,tome:9@2")
    with reductions(twin) as seen:
        _run(twin, pixels("vit"))
    assert torch.allclose(seen[1].size.sum(1), torch.tensor(64.0))
    assert seen[1].size.shape == (2, 11) and (seen[1].size[:, 10] >= 30).all()


def test_masks_are_refused_where_they_would_be_ignored():
    twin = prune(build("vit"), "evit:30@1")
    with pytest.raises(UsageError, match="beside the tokens"):
        twin(pixels("vit"), attention_mask=torch.ones(2, 65).tril())


def test_gradients_reach_every_weight_and_modes_are_kept():
    network = build("vit").train()
    twin = prune(network, "evit:30@1")
    assert network.training and twin.training and pruned_blocks(twin).blocks[0].training
    out = twin(pixels("vit"))
    (out.last_hidden_state.square().mean() + out.pooler_output.mean()).backward()
    assert all(p.grad is not None for p in twin.parameters())
    assert all(p.grad is None for p in network.parameters())


def test_a_foreign_network_by_its_layout():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body = nn.Linear(6, 16), nn.ModuleList(_Odd() for _ in range(3))

        def forward(self, x):
            x = self.stem(x)
            for block in self.body:
                x = block(x)
            return x.mean(1)

    class _Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.LayerNorm(16), nn.LayerNorm(16)
            self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
            self.up, self.act, self.down = nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16)
            self.n = 4

        def forward(self, x):
            y = self.before(x)
            q, k, v = (p(y).unflatten(-1, (4, 4)).transpose(1, 2) for p in (self.q, self.k, self.v))
            y = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
            x = x + self.o(y.transpose(1, 2).flatten(2))
            return x + self.down(self.act(self.up(self.after(x))))

    torch.manual_seed(0)
    network, x = Odd().eval(), torch.randn(2, 12, 6)
    layout = BlockLayout(
        "body", "before", ("q", "k", "v"), "o", "n", "after", ("up", "act", "down"),
        class_token=False,
    )  # fmt: skip
    twin = prune(network, "tome:8@1", example=x, layout=layout)
    assert _run(twin, x).shape == (2, 16)
    wrong = copy.deepcopy(layout)
    object.__setattr__(wrong, "mlp", ("up", "down"))
    with pytest.raises(UsageError, match="not the sum of the parts"):
        prune(network, "tome:8@1", example=x, layout=wrong)
    object.__setattr__(wrong, "mlp", ("upp",))
    with pytest.raises(UsageError, match="expects 'upp' in _Odd, which has"):
        prune(network, "tome:8@1", example=x, layout=wrong)


def test_blocks_in_a_sequence_that_is_called():
    """As timm does: self.blocks(x)."""

    class Called(PlainVit):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(*self.blocks)

        def forward(self, x):
            return self.blocks(self.embed(x))

    network, x = Called().eval(), pixels("plain")
    assert torch.equal(_run(prune(network, "dense", example=x), x), _run(network, x))
    assert _run(prune(network, "tome:40@1", example=x), x).shape == (2, 41, 32)


def test_parts_make_up_the_block():
    network = PlainVit().eval()
    twin = prune(network, "evit:30@1", example=pixels("plain"))
    layout, block = pruned_blocks(twin).layout, network.blocks[2]
    tokens = torch.randn(2, 65, 32)
    with torch.no_grad():
        added, _ = attend(block, layout, tokens)
        torch.testing.assert_close(added + feed(block, layout, added), block(tokens))


@pytest.mark.parametrize(
    ("plan", "more", "message"),
    [
        ("evit:65@1", {}, "only 64 enter"),
        ("evit:30@3", {}, r"blocks 0\.\.2"),
        ("evit:1@1", {}, "expected at least 2"),
        ("tome:20@1", {}, "Keep at least 32"),
        ("evit:30@1", {"restore": "skatter"}, "did you mean 'scatter'"),
        ("evit:30@1", {"grid": (5, 5)}, "5 x 5 was given; 64 patches"),
        ("evit:30@1", {"example": torch.zeros(1, 3, 9, 9)}, "does not run on the example"),
        ("tome:40@1", {"restore": "scatter"}, "no place to be written"),
    ],
)
def test_plans_that_do_not_fit(plan, more, message):
    with pytest.raises(UsageError, match=message):
        prune(build("vit"), plan, **more)


def test_a_network_without_a_class_token():
    with pytest.raises(UsageError, match="network has none"):
        prune(build("siglip"), "evit:30@1")


def test_networks_that_cannot_be_pruned():
    with pytest.raises(UsageError, match="has 0 lists of transformer blocks"):
        prune(nn.Sequential(nn.Linear(3, 3)), "evit:3@1", example=torch.zeros(1, 3))
    with pytest.raises(UsageError, match="inputs of PlainVit are not known"):
        prune(PlainVit(), "evit:30@1")

    class Masked(PlainVit):
        def forward(self, x):
            return self._through(x, torch.zeros(1, 1, 65, 65))

    with pytest.raises(UsageError, match="tensors beside the tokens"):
        prune(Masked(), "evit:30@1", example=pixels("plain"))

    class Busy(PlainVit):
        def forward(self, x):
            tokens = self.embed(x)
            for number, block in enumerate(self.blocks):
                tokens = block(tokens) + number
            return tokens

    with pytest.raises(UsageError, match="between the blocks 1 and 2"):
        prune(Busy(), "evit:30@1", example=pixels("plain"))

    class Needs(PlainVit):
        def forward(self, x):
            return super().forward(x)[:, 1:].reshape(len(x), 8, 8, 32)

    with pytest.raises(UsageError, match="does not run on fewer tokens") as caught:
        prune(Needs(), "evit:30@1", example=pixels("plain"))
    assert "restore='scatter'" in str(caught.value.hint)
    whole = prune(Needs(), "evit:30@1", example=pixels("plain"), restore="scatter")
    assert whole(pixels("plain")).shape == (2, 8, 8, 32)
