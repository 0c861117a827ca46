"""`prunus export`: one sub-command per row of the registry of models."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from prunus.runtime.command import new_app


class Models(TyperGroup):
    """Makes the sub-commands when they are asked for: other verbs start without their options."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the models, in the order of the registry."""
        from prunus.export.common.registry import MODELS

        return [model.name for model in MODELS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a model, None for an unknown name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        from prunus.export.common.command import verb
        from prunus.export.common.registry import find_model

        model, made = find_model(cmd_name), new_app("export", "")
        made.command(cmd_name, short_help=model.help)(verb(model))
        return typer.main.get_command(made)


app = typer.Typer(
    cls=Models,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Export a model as one static ONNX file that carries its own card.

\b
Examples:
  prunus export evitpose --variant tiny --level L2 -o evitpose-tiny-L2.onnx
  prunus export unitranspose --variant small --skeleton unified23 --joints mpii16
  prunus export movenet package/ --variant lightning -o movenet_lightning.onnx
""",
)
