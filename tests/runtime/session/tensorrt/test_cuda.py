"""What the driver says of a GPU, by a driver that answers from a table."""

import pytest

from prunus.runtime.errors import HostError
from prunus.runtime.session.tensorrt.cuda import DeviceProperties, Driver


class _Table(Driver):
    def __init__(self, version: int, count: int = 2) -> None:
        self._numbers = {"cuDeviceGetCount": count, "cuDriverGetVersion": version}

    def number(self, name, *arguments):
        if name == "cuDeviceGetAttribute":
            attribute, device = arguments
            return {75: 8, 76: 9}[attribute] + device - 11  # major and minor of CUDA's header
        return arguments[0] + 10 if name == "cuDeviceGet" else self._numbers[name]

    def call(self, name, *arguments):
        assert name == "cuDeviceGetName"
        buffer, room, device = arguments
        assert room == len(buffer) and device == 11
        buffer.value = b"a GPU"


@pytest.mark.parametrize(
    ("version", "told"), [(12080, "12.8"), (13000, "13.0"), (11040, "11.4"), (12120, "12.12")]
)
def test_a_device_and_the_version_of_its_driver(version, told) -> None:
    found = _Table(version).properties(1)
    assert found == DeviceProperties(1, "a GPU", "8.9", told)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(HostError, match=r"GPU 2 was asked for; the driver shows 2\."):
        _Table(12080).properties(2)
    with pytest.raises(HostError, match="shows 0"):
        _Table(12080, count=0).properties(0)


def test_no_driver_is_an_error_of_the_machine(tmp_path) -> None:
    with pytest.raises(HostError, match="The NVIDIA driver cannot be opened"):
        Driver(str(tmp_path / "none.so"))
