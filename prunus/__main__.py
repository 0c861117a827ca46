"""``python -m prunus`` is the command `prunus`."""

from prunus.apps.cli.main import command

command()
