import pytest

from prunus.apps.fleet import soak
from prunus.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("0s", 0), (".5h", 1800), (" 90 s", 90)]
)
def test_times(text, seconds) -> None:
    assert soak.read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["5", "m", "-1s", "5 days", "", "1e3s"])
def test_other_words_are_refused(text) -> None:
    with pytest.raises(UsageError, match="expected a time"):
        soak.read_seconds(text)


def test_temperatures_are_what_the_system_tells(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(soak, "_ZONES", tmp_path)
    assert soak.temperatures() == []
    for k, text in enumerate(["45500", "no number", "61000"]):
        (tmp_path / f"thermal_zone{k}").mkdir()
        (tmp_path / f"thermal_zone{k}" / "temp").write_text(text)
    assert soak.temperatures() == [45.5, 61.0]


def test_drift_is_told_in_percent() -> None:
    run = soak.Soak(300.0, (10.0, 14.0), 0.4, None)
    assert run.told(0.15) == "the median rose by 40 % in 300 s, allowed 15 %"
