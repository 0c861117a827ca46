import pytest

from prunus.apps.bench.ends import Ends


class One(Ends):
    scheme = "one"


class Other(Ends):
    scheme = "other"


def test_each_run_has_a_name_of_its_own_until_it_is_closed() -> None:
    first, second, other = One(), One(), Other()
    assert len({first.uri, second.uri, other.uri}) == 3
    assert first.uri.startswith("one:") and other.uri.startswith("other:")
    assert One.of(first.uri) is first and One.of(second.uri) is second
    with pytest.raises(AssertionError, match="row of its own"):
        One.of(other.uri)
    for ends in (first, second, other):
        ends.close()
        ends.close()
        with pytest.raises(KeyError):
            type(ends).of(ends.uri)
