"""One row per family of official checkpoints, one refusal of what it does not read."""

from dataclasses import fields
from pathlib import Path

import pytest

from prunus.models.checkpoints.registry import (
    IMPORTERS,
    ImportOptions,
    find_importer,
    import_model,
)
from prunus.runtime.errors import UsageError

NAMES = [importer.name for importer in IMPORTERS]
# A value of each option that is not its default.
GIVEN = {
    "variant": "base", "classes": 3, "head": "simple", "expert": 1, "names": Path("names.json"),
}  # fmt: skip


def test_every_row_has_its_own_name_a_function_and_known_options() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(GIVEN) == {f.name for f in fields(ImportOptions)}
    for importer in IMPORTERS:
        assert callable(importer.load())
        assert set(importer.options) <= set(GIVEN)


@pytest.mark.parametrize("name", NAMES)
def test_foreign_options_are_refused_before_anything_is_read(name, tmp_path) -> None:
    own = find_importer(name).options
    for option, value in GIVEN.items():
        if option in own:
            continue
        with pytest.raises(UsageError, match=f"--{option} is not for {name}") as caught:
            import_model(name, Path("none.pth"), tmp_path / "x", ImportOptions(**{option: value}))
        assert all(f"--{word}" in caught.value.hint for word in own)
    assert not list(tmp_path.iterdir())


def test_two_foreign_options_are_told_at_once() -> None:
    with pytest.raises(UsageError, match="--head and --names are not for dolphin"):
        import_model("dolphin", Path("a"), Path("b"), ImportOptions(head="simple", names=Path("c")))


def test_unknown_families_get_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'vitpose'"):
        find_importer("vitpos")
