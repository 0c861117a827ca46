import pytest

from prunus.apps.cli.main import main
from prunus.apps.io.ends import Ends
from prunus.runtime.errors import SourceError


class One(Ends):
    scheme = "one"


class Other(Ends):
    scheme = "other"


def test_each_run_has_a_name_of_its_own_until_it_is_closed() -> None:
    first, second, other = One(), One(), Other()
    assert len({first.uri, second.uri, other.uri}) == 3
    assert first.uri.startswith("one:") and other.uri.startswith("other:")
    assert One.of(first.uri) is first and One.of(second.uri) is second
    with pytest.raises(SourceError, match=f"no measurement named {other.uri}"):
        One.of(other.uri)
    for ends in (first, second, other):
        ends.close()
        ends.close()
        with pytest.raises(SourceError, match="no measurement"):
            type(ends).of(ends.uri)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "pose", "--source", "clock:99", "--sink", "null:"),
        ("run", "codec", "--source", "clicks:99", "--sink", "null:"),
    ],
)
def test_a_name_that_somebody_types_is_told_in_one_error(words, capsys) -> None:
    assert main([*words, "--quiet"]) == 2
    told = capsys.readouterr().err
    assert f"no measurement named {words[3]}" in told and "Unexpected" not in told
