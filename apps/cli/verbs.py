"""From rows to verbs: a group that imports a verb only when it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

import prunus
from prunus.runtime.command import Call, command, new_app
from prunus.runtime.references import load

HELP_FLAGS = ("-h", "--help")


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb, or a group of them; references are ``module:attribute``.

    Attributes:
        name: What users type.
        help: What it does, in one line.
        options: Dataclass made with `runtime.options`, or what returns it; what its docstring says
            after the first paragraph is the rest of the help.
        call: Gets the options and the console.
        verbs: For a group instead of the two above: its rows, or a function that returns them.
        more: The rest of the help, of a group or instead of that docstring.
        default: For a group: the verb that is meant when none is named.
    """

    name: str
    help: str
    options: str | Callable[[], type[Any]] = ""
    call: str | Call = ""
    verbs: Any = ()
    more: str = ""
    default: str = ""

    def options_class(self) -> type[Any] | None:
        """Return the dataclass of its options, None for a group."""
        if not self.options:
            return None
        found: type[Any] = load(self.options) if isinstance(self.options, str) else self.options()
        return found

    def rest(self) -> str:
        """Return the help behind its one line."""
        options = None if self.more else self.options_class()
        if options is None:
            return self.more
        return inspect.cleandoc(options.__doc__ or "").partition("\n\n")[2]

    def rows(self) -> tuple[Verb, ...]:
        """Return the verbs of a group, none for a verb."""
        found = load(self.verbs) if isinstance(self.verbs, str) else self.verbs
        return tuple(found() if callable(found) else found)


def build(verb: Verb) -> Any:
    """Return the verb as the command-line library knows it."""
    options = verb.options_class()
    if options is not None:
        call = load(verb.call) if isinstance(verb.call, str) else verb.call
        app = new_app(verb.name, verb.help)
        text = f"{verb.help}\n\n{verb.rest()}"
        app.command(verb.name)(command(options, call, name=verb.name, help=text))
        return get_command(app)
    return group(replace(verb, verbs=verb.rows()))


def group(verb: Verb, parameters: Sequence[Any] = ()) -> VerbGroup:
    """Return a group of verbs; `parameters` are options before the verb."""
    text = f"{verb.help}\n\n{verb.more}"
    return VerbGroup(verb.name, text, verb.verbs, parameters, default=verb.default)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"prunus {prunus.__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Show it and end.", callback=_show_version, is_eager=True)
]


def _root(version: Version = False) -> None:
    """Stand for the options before any verb."""


def root_options() -> Sequence[Any]:
    """Return the options before any verb: ``--version``, and those for the shell's completion."""
    app = typer.Typer(rich_markup_mode=None)
    app.command()(_root)
    return get_command(app).params


class VerbGroup(TyperGroup):
    """Verbs by name, made when they are called; their help in the list is never cut off.

    Args:
        name: Name of the group.
        help: Its help.
        rows: Its verbs.
        parameters: Options before the verb.
        default: The verb that is meant when none is named.
    """

    def __init__(
        self,
        name: str,
        help: str | None,
        rows: Sequence[Verb],
        parameters: Sequence[Any] = (),
        *,
        default: str = "",
    ) -> None:
        self.rows = {row.name: row for row in rows}
        # The names are for the library's "Did you mean".
        commands: Any = dict.fromkeys(self.rows)
        super().__init__(
            name=name, help=help, commands=commands,
            no_args_is_help=not default, rich_markup_mode=None, params=list(parameters),
            context_settings={"help_option_names": list(HELP_FLAGS)},
        )  # fmt: skip
        self.default = default

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb by name, None where there is none."""
        if self.commands.get(cmd_name) is None and cmd_name in self.rows:
            self.commands[cmd_name] = build(self.rows[cmd_name])
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; the default verb stands for itself where none is named."""
        if self.default and (not args or (args[0].startswith("-") and args[0] not in HELP_FLAGS)):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of verbs without importing them."""
        shown = [(name, row.help) for name, row in self.rows.items()]
        with formatter.section("Commands"):
            formatter.write_dl(shown)
