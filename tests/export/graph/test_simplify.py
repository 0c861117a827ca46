from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from prunus.export.graph.naming import scope_of
from prunus.export.graph.simplify import (
    canonicalise,
    cast_bytes_first,
    fold_shuffled_norms,
    share_constants,
    simplify,
)
from prunus.runtime.errors import PrunusError


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feeds)


def test_the_graph_computes_what_the_module_computes(pose_graph, small_pose, noise_crops):
    import torch

    with torch.no_grad():
        joints, maps = (o.numpy() for o in small_pose(torch.from_numpy(noise_crops[:1])))
    got_joints, got_maps = run(pose_graph, {"image": noise_crops[:1]})
    np.testing.assert_allclose(got_maps, maps, atol=MAP_TOLERANCE)
    np.testing.assert_allclose(got_joints[..., 2], joints[..., 2], atol=MAP_TOLERANCE)
    moved = np.linalg.norm(got_joints[..., :2] - joints[..., :2], axis=-1)
    sharp = _wobble(maps, joints) <= 1e-2
    assert sharp.mean() >= 0.25, "too few peaks of this network are sharp enough to judge"
    assert moved[sharp].max() <= 1e-2


MAP_TOLERANCE = 2e-5


def _wobble(maps, joints):
    """Pixels by which rounding that is allowed in the maps may move each joint, (B, J).

    The maps are noise: where one is nearly flat around its maximum, the Newton step divides by a
    curvature near zero, and the last bit of another processor's sums moves the joint visibly.
    """
    import torch

    from prunus.models.pose.decode import udp_dark_decode

    rng = np.random.default_rng(0)
    scale = np.array([191 / (maps.shape[3] - 1), 255 / (maps.shape[2] - 1)])
    furthest = np.zeros(joints.shape[:2])
    for _ in range(8):
        shaken = maps + rng.uniform(-MAP_TOLERANCE, MAP_TOLERANCE, maps.shape).astype(np.float32)
        places = udp_dark_decode(torch.from_numpy(shaken)).numpy()[..., :2] * scale
        furthest = np.maximum(furthest, np.linalg.norm(places - joints[..., :2], axis=-1))
    return furthest


def test_norms_are_folded_and_names_survive(pose_graph):
    kinds = [node.op_type for node in pose_graph.graph.node]
    assert "BatchNormalization" not in kinds
    assert "Gemm" not in kinds
    names = [node.name for node in pose_graph.graph.node]
    assert len(set(names)) == len(names)
    values = [v for node in pose_graph.graph.node for v in node.output]
    assert len(set(values)) == len(values)
    assert {f"network.blocks.{b}.mlp.fc1/MatMul" for b in range(3)} <= set(names)
    assert all(scope_of(n) for n in names if "TopK" in n or "Softmax" in n)


def test_nothing_of_this_machine_is_inside(pose_graph):
    text = pose_graph.SerializeToString()
    for trace in (os.getcwd(), os.path.expanduser("~"), "site-packages", "forward"):
        assert trace.encode() not in text, trace
    assert not pose_graph.metadata_props
    assert not any(n.doc_string or n.metadata_props for n in pose_graph.graph.node)


def test_every_intermediate_value_is_described(pose_graph):
    described = {v.name for v in (*pose_graph.graph.value_info, *pose_graph.graph.output)}
    made = {v for node in pose_graph.graph.node for v in node.output if v}
    assert made <= described


_TWICE = """
import hashlib, torch
from prunus.export.graph.simplify import simplify
from prunus.export.graph.trace import trace
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig
from prunus.models.tokens.plan import PruningPlan
torch.manual_seed(0)
config = EViTPoseConfig("tiny", 32, 2, PruningPlan("custom", (0,), (100,)), "subpixel", depth=1)
module = DeployedPose(EViTPose(config))
model = simplify(trace(module, (torch.zeros(1, 256, 192, 3, dtype=torch.uint8),), ["i"], ["k"]))
print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())
"""


def test_two_processes_give_the_same_bytes(capsys):
    seed = "77" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    other = subprocess.Popen(
        [sys.executable, "-c", _TWICE],
        env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with torch.random.fork_rng(devices=[]):
        exec(_TWICE, {})  # here, with this process' own seed
    here, there = capsys.readouterr().out.strip(), other.communicate()[0].strip()
    assert other.returncode == 0
    assert len(here) == 64
    assert here == there


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_a_norm_behind_a_shuffle_changes_nothing(mode, bias):
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.normal(size=(12, 4, 1, 1)),
        "b": rng.normal(size=12),
        "gamma": rng.normal(size=3),
        "beta": rng.normal(size=3),
        "mean": rng.normal(size=3),
        "var": rng.uniform(0.2, 2, size=3),
    }
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["c"], name="c"),
        helper.make_node("DepthToSpace", ["c"], ["d"], blocksize=2, mode=mode, name="d"),
        helper.make_node(
            "BatchNormalization", ["d", "gamma", "beta", "mean", "var"], ["y"], name="n"
        ),
    ]
    model = _model(nodes, (1, 4, 5, 6), (1, 3, 10, 12), tensors)
    feeds = {"x": rng.normal(size=(1, 4, 5, 6)).astype(np.float32)}
    before = run(model, feeds)[0]
    assert fold_shuffled_norms(model) == 1
    assert [n.op_type for n in model.graph.node] == ["Conv", "DepthToSpace"]
    np.testing.assert_allclose(run(canonicalise(model), feeds)[0], before, atol=1e-5)


def test_a_norm_whose_input_is_read_elsewhere_stays():
    tensors = [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")]
    tensors += [numpy_helper.from_array(np.ones(1, np.float32), n) for n in "gbmv"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("DepthToSpace", ["c"], ["d"], blocksize=2, mode="CRD"),
        helper.make_node("BatchNormalization", ["d", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Add", ["d", "n"], ["y"]),
    ]
    assert fold_shuffled_norms(_model(nodes, (1, 4, 2, 2), (1, 1, 4, 4), tensors)) == 0


def test_bytes_are_cast_before_they_are_moved():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
    ]
    model = _model(nodes, (1, 2, 3), (1, 3, 2), [], TensorProto.UINT8)
    feeds = {"x": np.arange(6, dtype=np.uint8).reshape(1, 2, 3)}
    before = run(model, feeds)[0]
    cast_bytes_first(model)
    assert [n.op_type for n in model.graph.node] == ["Cast", "Transpose"]
    np.testing.assert_array_equal(run(model, feeds)[0], before)


def test_equal_constants_are_shared_but_parameters_are_not():
    one = np.ones(2, np.float32)
    names = ["a.weight", "b.weight", "val_1", "val_2"]
    tensors = [numpy_helper.from_array(one, n) for n in names]
    nodes = [helper.make_node("Sum", ["x", *names], ["y"])]
    model = _model(nodes, (2,), (2,), tensors)
    share_constants(model)
    assert [t.name for t in model.graph.initializer] == ["a.weight", "b.weight"]


def test_a_graph_that_contradicts_itself_is_refused():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    tensors = [numpy_helper.from_array(np.ones((7, 2), np.float32), "w")]
    with pytest.raises(PrunusError):
        simplify(_model(nodes, (1, 4), (1, 2), tensors))


def _model(nodes, shape, result, tensors, kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
