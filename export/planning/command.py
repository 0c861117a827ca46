"""`prunus plan` and `prunus layers`: what a command line does with the options."""

from __future__ import annotations

from prunus.export.planning.options import LayersOptions, PlanOptions
from prunus.export.planning.planner import make_plan, require_target
from prunus.runtime.command import Console


def plan(options: PlanOptions, console: Console) -> None:
    """Measure, write plan and picture, say what is best; exit code 1 where nothing is."""
    with console.progress("plan") as progress:
        made = make_plan(options, progress=progress)
    if options.output is not None:
        made.write(options.output)
    if options.plot is not None:
        from prunus.export.planning.plot import draw, write_picture

        write_picture(draw(made), options.plot)
    console.say(made.to_text(), made.to_json())
    made.raise_if_unmet()


def layers(options: LayersOptions, console: Console) -> None:
    """Say which blocks need their patches to meet, and which score ranks them."""
    from prunus.export.planning.layers import find_layers

    require_target(options.output, ".json")
    with console.progress("layers") as progress:
        found = find_layers(options, progress=progress)
    if options.output is not None:
        found.write(options.output)
    console.say(found.to_text(), found.to_json())
