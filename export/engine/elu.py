"""Spell ELU so that TensorRT-RTX can build it.

TensorRT-RTX 1.7.1 gives up on graphs in which an ``Elu`` reads the cut result of a transposed
convolution ("There are 2 inputs. Expected 1."). ``Selu`` with alpha = gamma = 1 is the same
function, and builds. Files stay as they are; only what the builder reads is respelled.
"""

from __future__ import annotations

from pathlib import Path


def respell_elu(path: str | Path, target: str | Path) -> bool:
    """Write the graph with every ``Elu`` as ``Selu`` of the same value.

    Args:
        path: ONNX file.
        target: File to write; may be `path`.

    Returns:
        Whether there was one; otherwise nothing is written.
    """
    import onnx

    model = onnx.load(str(path))
    found = [node for node in model.graph.node if node.op_type == "Elu" and not node.domain]
    for node in found:
        given = {a.name: a.f for a in node.attribute}
        del node.attribute[:]
        node.op_type = "Selu"
        node.attribute.extend(
            [
                onnx.helper.make_attribute("alpha", float(given.get("alpha", 1.0))),
                onnx.helper.make_attribute("gamma", 1.0),
            ]
        )
    if found:
        onnx.save(model, str(target))
    return bool(found)
