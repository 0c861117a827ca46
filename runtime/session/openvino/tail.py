"""Keep some layers in float32 while OpenVINO multiplies the rest in bfloat16.

The layer that a decoder reads, for its accuracy; long filters, because it cannot prepare them.

OpenVINO leaves what follows the last matrix product or convolution in float32, but stores that
layer's own result in bfloat16. Eight bits are too few for it: the place of a joint is read off
differences of neighbouring heatmap values. Seen on an early EViTPose-Tiny with 64 real crops: the
mean error falls from 0.21 px to 0.13 px and the 99th percentile from 1.8 px to 0.6 px when this one
layer stays in float32, for 6 % more time.

Of filters along a row, one per channel, OpenVINO 2026.4 waits for itself for ever when it prepares
33 taps in bfloat16 with two threads. Their time is that of memory, so little is lost.
"""

from __future__ import annotations

from typing import Any

_LONG = 16  # taps
_PRODUCTS = frozenset({"MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData"})

# OpenVINO's Python interface cannot make the attribute that keeps a layer's precision, but its
# model reader can. What it makes of this has different names in different versions, so the layer's
# attributes are copied whatever they are called.
_DONOR = """<net name="donor" version="11"><layers>
<layer id="0" name="in" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="kept" type="ReLU" version="opset1">
<rt_info><attribute name="precise" version="0"/></rt_info>
<input><port id="0" precision="FP32"><dim>1</dim></port></input>
<output><port id="1" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="2" name="out" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input></layer></layers>
<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>"""


def keep_in_float32(core: Any, model: Any) -> tuple[str, ...]:
    """Mark, in place, the last product on every way to an output, and long filters along a row.

    Args:
        core: `openvino.Core`.
        model: `openvino.Model`, not compiled yet.

    Returns:
        Names of the last products, sorted; none when this OpenVINO cannot keep layers.
    """
    donor = core.read_model(_DONOR.encode(), b"")
    source = next(op for op in donor.get_ops() if op.get_friendly_name() == "kept")
    attributes = dict(source.get_rt_info().items())
    if not attributes:
        return ()
    last = last_products(model)
    for node in (*last, *long_filters(model)):
        for key, value in attributes.items():
            node.set_rt_info(value, key)
    return tuple(sorted(node.get_friendly_name() for node in last))


def long_filters(model: Any) -> list[Any]:
    """Return the filters along a row, one per channel, of `_LONG` taps or more."""
    found = []
    for node in model.get_ops():
        if node.get_type_name() == "GroupConvolution":
            taps = list(node.get_input_partial_shape(1))[3:]  # behind groups, outputs and inputs
            if len(taps) == 2 and taps[0] == 1 and taps[1].get_min_length() >= _LONG:
                found.append(node)
    return found


def last_products(model: Any) -> list[Any]:
    """Return the products that are reached from an output without passing another product."""
    found: list[Any] = []
    seen: set[str] = set()
    ahead = list(model.get_results())
    while ahead:
        node = ahead.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        if node.get_type_name() in _PRODUCTS:
            found.append(node)
        else:
            ahead.extend(value.get_node() for value in node.input_values())
    return found
