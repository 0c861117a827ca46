"""The network against the numbers of the reference implementation, and against its own promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prunus.models.macs import count_macs, count_parameters
from prunus.models.separation.channels_first import GlobalNorm
from prunus.models.separation.config import DolphinConfig, LipConfig, dolphin_config
from prunus.models.separation.deployed import enliven
from prunus.models.separation.dolphin import LIP_REACH, Dolphin, build_dolphin
from prunus.models.separation.voice.heat_layer import freeze_heat, network_gain_error, set_heat
from prunus.runtime.errors import UsageError


def _same(value):
    return value


def _swap(value):
    return value.transpose(1, 2)


def _first(value):
    return value[0]


def _probes(net):
    """Return published name -> (module, what turns its output into the published tensor)."""
    probes = {}
    coder, head = net.video_encoder, net.video_blocks
    for short, path in (("sem", coder.semantic_model), ("rec", coder.recon_model)):
        probes[f"{short}.conv_in"] = (path.conv_in, _same)
        for k, layer in enumerate(path.encoder_layers):
            probes[f"{short}.layer{k}"] = (layer, _same)
    layers = coder.semantic_model.encoder_layers
    quantizer = coder.semantic_model.quantizer
    probes |= {
        "sem.layer0.se": (layers[0].fn[4], _same),
        "sem.layer5.linattn": (layers[5][0].fn, _same),
        "sem.layer8.attn": (layers[8][0].fn, _same),
        "sem.layer8.ff": (layers[8][1].fn, _same),
        "sem.vq_in": (quantizer.project_in, _same),
        "sem.z_q": (quantizer.project_out, _same),
        "video.out": (coder, _first),
        "video.pre_v1": (net.pre_v1, _same),
        "video.blocks": (head, _same),
        "video.blocks.proj": (head.proj_1x1, _same),
        "video.blocks.global": (head.globalatt, _same),
        "audio.enc": (net.audio_encoder, _same),
        "audio.proj": (net.feature_projector, _same),
        "fuse.resize": (net.modalfuse.resize, _same),
        "fuse.key": (net.modalfuse.key_embed, _same),
        "fuse.value": (net.modalfuse.value_embed, _same),
        "fuse.att": (net.modalfuse.attention_embed, _same),
        "fuse.out": (net.modalfuse, _same),
        "out.latent": (net.out_layer, _same),
    }
    for k in range(3):
        probes[f"video.blocks.down{k}"] = (head.spp_dw[k], _same)
    for k in range(2):
        probes[f"video.blocks.fused{k}"] = (head.loc_glo_fus[k], _same)
        probes[f"video.blocks.last{k}"] = (head.last_layer[k], _same)
    return probes | _separator_probes(net.separator)


def _separator_probes(separator):
    first, step = separator.enc_stages[0], separator.dec_stages[0]
    attention, local = first.g_block_1.block.DU_MHSA, first.l_block_1.block.CLA
    attend, feed = separator.bottleneck_G
    probes = {
        "sep.pos_k": (separator.pos_emb, _same),
        "sep.enc0.g1.mhsa": (attention.block.self_attn, _swap),
        "sep.enc0.g1.csa": (attention, _swap),
        "sep.enc0.g1": (first.g_block_1, _same),
        "sep.enc0.g2": (first.g_block_2, _same),
        "sep.enc0.l1.heat_out": (local.heat1d, _swap),
        "sep.enc0.l1.hda": (local, _swap),
        "sep.enc0.l1": (first.l_block_1, _swap),
        "sep.global.attn": (attend, _swap),
        "sep.global.out": (feed, _swap),
        "sep.dec0.g1": (step.g_block_1, _same),
        "sep.dec0.l1": (step.l_block_1, _swap),
    }
    top = separator.loc_glo_fus[0]
    probes["sep.topdown0.local"] = (top.local_embedding, _same)
    probes["sep.topdown0.gate"] = (top.global_act, _same)
    probes["sep.topdown0.global"] = (top.global_embedding, _same)
    for k in range(4):
        probes[f"sep.enc{k}.skip"] = (separator.enc_stages[k], _first)
        probes[f"sep.enc{k}.down"] = (separator.enc_stages[k], lambda pair: pair[1])
        probes[f"sep.topdown{k}"] = (separator.loc_glo_fus[k], _same)
        probes[f"sep.dec{k}.fuse"] = (separator.simple_fusion[k], _same)
        probes[f"sep.dec{k}.out"] = (separator.dec_stages[k], _same)
    return probes


def _observe(net, mixture, mouth):
    """Run the network; return its output, its codes and every probed tensor."""
    seen, handles = {}, []
    for name, (module, read) in _probes(net).items():

        def hook(_module, inputs, output, name=name, read=read):
            seen[name] = read(output)
            if name == "sep.global.attn":
                seen["sep.global.in"] = _swap(inputs[0])

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            lips, codes = net.watch(mouth)
            voice = net.listen(mixture, lips)
    finally:
        for handle in handles:
            handle.remove()
    return voice.numpy(), codes.numpy(), seen


def _require_output(cases, case, voice, codes):
    expected = cases.arrays[f"{case}/est_f64"]
    difference = voice - expected
    assert voice.shape == expected.shape
    assert np.sqrt(np.mean(difference**2)) <= 2e-4 * expected.std()
    # Float32 differs by CPU: what it costs the published network itself is allowed twice on top.
    known = f"{case}/est" in cases.arrays.files
    own = np.abs(cases.arrays[f"{case}/est"] - expected).max() if known else 0.0
    assert np.abs(difference).max() <= 2e-3 * expected.std() + 2 * own
    assert np.array_equal(codes[..., None], cases.arrays[f"{case}/sem.vq_idx"])


@pytest.mark.parametrize("case", ["tiny", pytest.param("sec1", marks=pytest.mark.slow)])
def test_every_published_tensor_agrees(network, cases, case):
    voice, codes, seen = _observe(network, *cases.inputs(case))
    _require_output(cases, case, voice, codes)
    compared = 0
    for name, expected, about in cases.tensors(case):
        if name in ("est", "est_f64", "sem.vq_idx"):
            continue
        got = seen[name]
        assert list(got.shape) == about["shape"], name
        picked = got[tuple(slice(None, None, step) for step in about["stride"])].numpy()
        rms = np.sqrt(np.mean((picked - expected) ** 2)) / about["std"]
        worst = np.abs(picked - expected).max() / about["std"]
        assert rms <= 1e-4 + 2 * about["f32_rmserr_over_std"], (name, rms)
        assert worst <= 1e-3 + 2 * about["f32_maxerr_over_std"], (name, worst)
        compared += 1
    assert compared >= (20 if case == "sec1" else 70)


@pytest.mark.parametrize("case", ["b2", pytest.param("odd", marks=pytest.mark.slow)])
def test_outputs_agree_for_batches_and_awkward_lengths(network, cases, case):
    with torch.no_grad():
        mixture, mouth = cases.inputs(case)
        lips, codes = network.watch(mouth)
        voice = network.listen(mixture, lips).numpy()
    _require_output(cases, case, voice, codes.numpy())


@pytest.mark.parametrize(("form", "radius"), [("filter", 16), ("filter", 64), ("dense", 1)])
def test_every_form_of_the_heat_operator_stays_in_tolerance(network, cases, form, radius):
    set_heat(network, form, radius)
    try:
        with torch.no_grad():
            mixture, mouth = cases.inputs("tiny")
            lips, codes = network.watch(mouth)
            voice = network.listen(mixture, lips).numpy()
    finally:
        set_heat(network, "filter", network.config.heat_radius)
    _require_output(cases, "tiny", voice, codes.numpy())


def test_skewed_positions_give_what_the_table_gives(network, cases):
    mixture, mouth = cases.inputs("tiny")
    table = network(mixture, mouth)
    network.separator.pos_emb.form = "skew"
    try:
        skewed = network(mixture, mouth)
    finally:
        network.separator.pos_emb.form = "table"
    assert (table - skewed).abs().max() <= 1e-4 * table.std()


def test_float64_agrees_with_the_float64_reference_to_rounding(filled_state, cases):
    net = build_dolphin(replace(dolphin_config("base"), heat="dense")).double()
    net.load_state_dict({k: v.double() for k, v in filled_state.items()})
    mixture, mouth = cases.inputs("tiny")
    with torch.no_grad():
        voice = net(mixture.double(), mouth.double()).numpy()
    expected = cases.arrays["tiny/est_f64"]
    # The published numbers are rounded to float32.
    assert np.sqrt(np.mean((voice - expected) ** 2)) <= 1e-6 * expected.std()


def test_frozen_filters_compute_the_same(network, cases):
    mixture, mouth = cases.inputs("tiny")
    with torch.no_grad():
        before = network(mixture, mouth)
        freeze_heat(network)
        after = network(mixture, mouth)
    set_heat(network, "filter", network.config.heat_radius)
    assert torch.equal(before, after)
    # The recipe's exponents go down to 0.6: the bound is that of the sharpest channel.
    assert network_gain_error(network, 64) < network_gain_error(network, 16) < 1e-2


def test_keys_and_shapes_are_those_of_the_released_weights(parity):
    layout = parity("dolphin").entries()
    with torch.device("meta"):
        own = Dolphin(dolphin_config("base")).state_dict()
    assert set(own) == set(layout)
    assert all(list(own[key].shape) == about["shape"] for key, about in layout.items())


def _meta_macs(config, seconds):
    with torch.device("meta"):
        net = Dolphin(config).eval()
        freeze_heat(net)
        mixture = torch.zeros(1, int(seconds * config.sample_rate))
        mouth = torch.zeros(1, 1, int(seconds * config.frame_rate), 88, 88)
        return count_macs(net, mixture, mouth) / 1e9


def test_parameters_are_the_published_ones():
    with torch.device("meta"):
        net = Dolphin(dolphin_config("base"))
    assert count_parameters(net) == 7_000_448
    without = count_parameters(net) - count_parameters(net.video_encoder)
    assert without == 6_218_630
    assert count_parameters(net.separator) == 5_248_768


@pytest.mark.parametrize(
    ("heat", "radius", "seconds", "giga"),
    [
        ("filter", 32, 1, 12.05),
        ("filter", 64, 1, 12.6),
        ("filter", 32, 2, 25.2),
        ("dense", 32, 1, 52.83),
    ],
)
def test_multiply_accumulates_are_the_counted_ones(heat, radius, seconds, giga):
    config = replace(dolphin_config("base"), heat=heat, heat_radius=radius)
    assert _meta_macs(config, seconds) == pytest.approx(giga, rel=0.005)


def test_nano_is_small_and_keeps_the_parts_of_the_paper():
    config = dolphin_config("nano")
    with torch.device("meta"):
        net = Dolphin(config)
    assert count_parameters(net) < 1_200_000
    assert _meta_macs(config, 1) < 1.0
    assert net.video_encoder.semantic_model.quantizer.codes.shape == (256, config.lips.code_dim)


@pytest.mark.parametrize("samples", [16, 17, 641, 1600])
def test_any_length_comes_back_cut_to_whole_frames(samples):
    config = dolphin_config("nano")
    net = build_dolphin(config)
    with torch.no_grad():
        voice = net(torch.randn(2, samples), torch.randn(2, 1, 3, 88, 88))
    assert voice.shape == (2, 1, (config.audio_frames(samples) - 1) * config.stride + config.kernel)
    assert samples - config.stride < voice.shape[-1] <= samples
    assert torch.isfinite(voice).all()


def test_both_inputs_decide_the_output():
    net = build_dolphin(dolphin_config("nano"))
    torch.manual_seed(0)
    mixture, lips = torch.randn(1, 1600), torch.randn(2, 1, 3, 88, 88)
    with torch.no_grad():
        one, two = net(mixture, lips[:1]), net(mixture, lips[1:])
        both = net(mixture.expand(2, -1), lips)
    assert (one - two).abs().max() > 1e-3 * one.std()
    assert torch.allclose(both, torch.cat((one, two)), atol=1e-5 * float(one.std()))


def test_gradients_reach_every_parameter_that_inference_reads():
    net = build_dolphin(dolphin_config("nano"))
    net(torch.randn(1, 800), torch.randn(1, 1, 4, 88, 88)).square().mean().backward()
    idle = {name for name, p in net.named_parameters() if p.grad is None}
    unread = ("to_k.0.", "loc_glo_fus.2.", "quantizer.project_in")  # arg-min has no gradient
    allowed = {
        n
        for n in idle
        if any(part in n for part in unread)
        or (n.startswith("video_encoder.semantic_model.") and "project_out" not in n)
    }
    # The separator's third fusion is read; only the video block's is not.
    assert not any(n.startswith("separator.loc_glo_fus.2.") and "to_k" not in n for n in idle)
    assert idle == allowed


def test_coarser_tokens_change_the_attention_only():
    plain = build_dolphin(dolphin_config("nano"))
    coarse = build_dolphin(replace(dolphin_config("nano"), token_step=2))
    for net in (plain, coarse):
        enliven(net)
    torch.manual_seed(4)
    mixture, mouth = torch.randn(1, 6400), torch.randn(1, 1, 10, 88, 88)
    seen = []
    block = coarse.separator.enc_stages[0].g_block_1.block.DU_MHSA.block.self_attn
    block.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
    with torch.no_grad():
        one, two = plain(mixture, mouth), coarse(mixture, mouth)
    assert seen == [25] and one.shape == two.shape
    noise = float((one - two).square().mean() / one.square().mean())
    assert 1e-8 < noise < 10  # what it means for trained weights, these cannot say
    assert _meta_macs(coarse.config, 2) < _meta_macs(plain.config, 2)


def test_impossible_configurations_are_refused():
    with pytest.raises(UsageError, match="heads"):
        replace(dolphin_config("base"), heads=7)
    with pytest.raises(UsageError, match="stride"):
        DolphinConfig(stride=5)
    with pytest.raises(UsageError, match="radius"):
        DolphinConfig(heat_radius=0)
    with pytest.raises(UsageError, match="token step"):
        DolphinConfig(token_step=3)
    with pytest.raises(UsageError, match="at least 16"):
        dolphin_config("base").audio_frames(15)
    with pytest.raises(UsageError, match="nano"):
        dolphin_config("nanno")
    assert LipConfig().features == 3872


def test_lip_features_depend_on_eleven_frames_to_each_side():
    net = build_dolphin(dolphin_config("nano")).double()
    torch.manual_seed(2)
    mouth = torch.randn(1, 1, 30, 88, 88, dtype=torch.float64)
    changed = mouth.clone()
    changed[:, :, 3] += 5
    with torch.no_grad():
        before, after = net.watch(mouth)[0], net.watch(changed)[0]
        part = net.watch(mouth[:, :, 4:])[0]
    moved = (before - after).abs().amax(dim=(0, 1)) > 1e-12
    assert moved[: 3 + LIP_REACH + 1].any() and not moved[3 + LIP_REACH + 1 :].any()
    # Watched in pieces, frames with their whole context come out the same.
    assert torch.allclose(part[..., LIP_REACH:], before[..., 4 + LIP_REACH :], atol=1e-9)


def test_silence_stays_silent_and_finite():
    norm = GlobalNorm(4)
    with torch.no_grad():
        assert torch.equal(norm(torch.zeros(1, 4, 10)), torch.zeros(1, 4, 10))
        x = torch.randn(1, 4, 50, dtype=torch.float64)
        group = torch.nn.functional.group_norm(x, 1, eps=norm.eps)
        assert torch.allclose(norm.double()(x), group, atol=1e-12)
    net = build_dolphin(dolphin_config("nano"))
    enliven(net)
    with torch.no_grad():
        voice = net(torch.zeros(1, 1600), torch.zeros(1, 1, 4, 88, 88))
    assert torch.isfinite(voice).all()
