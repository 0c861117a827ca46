"""`prunus export`: one verb per row of the registry of models."""

from __future__ import annotations

from functools import partial

from prunus.apps.cli.verbs import Verb


def export_verbs() -> tuple[Verb, ...]:
    """Return the verbs of `prunus export`, in the order of the registry."""
    from prunus.export.common.command import call_of, examples_of
    from prunus.export.common.registry import MODELS, load

    return tuple(
        Verb(
            m.name,
            m.help,
            partial(load, m.options),
            call_of(m),
            more=examples_of(m, f"prunus export {m.name}"),
        )
        for m in MODELS
    )
