"""Protobuf text: what is written is what Triton reads."""

import numpy as np
import pytest

from prunus.apps.deploy import config
from prunus.runtime.card.tensors import DTYPES, TensorSpec
from prunus.runtime.errors import ArtifactError


def test_every_dtype_of_a_card_has_a_type(parsed):
    specs = [TensorSpec(f"t{k}", dtype, (1, k + 1), ("a", "b")) for k, dtype in enumerate(DTYPES)]
    read = parsed(config.text_of({"input": config.tensors(specs)})).input
    assert [one.name for one in read] == [spec.name for spec in specs]
    assert [list(one.dims) for one in read] == [list(spec.shape) for spec in specs]
    kinds = [type(one).DESCRIPTOR.fields_by_name["data_type"].enum_type for one in read]
    for spec, one, kind in zip(specs, read, kinds, strict=True):
        name = kind.values_by_number[one.data_type].name.removeprefix("TYPE_").lower()
        assert name.replace("fp", "float") == spec.dtype
        assert np.dtype(spec.dtype).itemsize


@pytest.mark.parametrize("text", ['a "quoted" name', "back\\slash", "two\nlines", "ünïcode/:0"])
def test_texts_come_back_as_they_were(parsed, text):
    assert parsed(config.text_of({"name": text})).name == text


def test_numbers_switches_words_and_messages(parsed):
    read = parsed(
        config.text_of({
            "max_batch_size": 8,
            "dynamic_batching": {"max_queue_delay_microseconds": 2000, "preserve_ordering": True},
            "instance_group": [{"kind": config.Word("KIND_GPU"), "gpus": (0, 2)}, {"count": 3}],
            "parameters": config.parameters({"threads": 2}),
        })
    )  # fmt: skip
    assert read.max_batch_size == 8 and read.dynamic_batching.preserve_ordering is True
    assert read.dynamic_batching.max_queue_delay_microseconds == 2000
    first, second = read.instance_group
    assert list(first.gpus) == [0, 2] and first.Kind.Name(first.kind) == "KIND_GPU"
    assert second.count == 3 and read.parameters["threads"].string_value == "2"


def test_a_value_without_axes_is_refused():
    value = TensorSpec("loss", "float32", (), ())
    with pytest.raises(ArtifactError, match=r"loss float32 \[\] has no axis"):
        config.tensors([value])
    row = TensorSpec("score", "float32", (4,), ("batch",))
    assert config.tensors([row])[0]["dims"] == (4,)
    with pytest.raises(ArtifactError, match="score"):
        config.tensors([row], skip=1)


def test_a_warm_up_holds_files_and_zeros_of_the_exact_shape(parsed):
    inputs = [config.tensor("body", config.TEXT, (1,)), config.tensor("x", "float32", (2, 3))]
    text = config.text_of({"model_warmup": [config.warm_up(inputs, {"body": "picture"})]})
    [read] = parsed(text).model_warmup
    assert read.batch_size == 1 and read.inputs["body"].input_data_file == "picture"
    assert read.inputs["x"].zero_data is True and list(read.inputs["x"].dims) == [2, 3]
