"""What tests of networks share."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def run_onnx():
    """Return a runner: module, tensors -> outputs of its clean static graph in ONNX Runtime."""
    onnxruntime = pytest.importorskip("onnxruntime")

    def run(module, *inputs, outputs=1):
        from prunus.export.graph.audit import require_clean
        from prunus.export.graph.simplify import simplify
        from prunus.export.graph.trace import trace

        names = [f"input{k}" for k in range(len(inputs))]
        model = simplify(trace(module, inputs, names, [f"output{k}" for k in range(outputs)]))
        require_clean(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = {name: value.detach().numpy() for name, value in zip(names, inputs, strict=True)}
        return [np.asarray(out) for out in session.run(None, feed)]

    return run
