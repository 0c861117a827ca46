"""The `prunus` command: its verbs as rows, and every error as two lines and an exit code.

Exit codes: 0 ok, 1 a check failed (or an unexpected error), 2 wrong usage or input, 3 this machine
lacks something, 130 stopped with Ctrl-C or SIGTERM (whatever was finished by then is kept).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from prunus.runtime.command import end_process, run_typer

_APPS, _CLI = "prunus.apps.cli.apps", "prunus.apps.cli"
_DEVICES = "prunus.apps.fleet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Words after ``prunus``; None takes those of the process.

    Example:
        >>> main(["models", "--quiet"])
        0
    """
    return run_typer(build_app, sys.argv[1:] if arguments is None else arguments, "prunus")


def command() -> NoReturn:
    """Run the command line of this process, and end it with the exit code."""
    end_process(main)


def build_app() -> Any:
    """Return the command line; a verb is imported when it is called."""
    from prunus.apps.cli.verbs import Verb, group, root_options

    def verb(name: str, help: str, module: str = "") -> Verb:
        where = f"{_CLI}.{module or name}"
        return Verb(name, help, f"{where}:{name.title()}Options", f"{where}:{name}")

    def fleet(name: str, help: str, call: str) -> Verb:
        options = f"{_DEVICES}.options:{name.title()}Options"
        return Verb(name, help, options, f"{_DEVICES}.{call}")

    rows = (
        Verb("models", "List the models that come with prunus, and import official checkpoints.",
             verbs=f"{_CLI}.models:VERBS", default="list", more=_MODELS),
        Verb("export", "Export a model as one static ONNX file that carries its own card.",
             verbs=f"{_CLI}.export:export_verbs", more=_EXPORT),
        Verb("plan", "Find out which tokens to drop, or whether to: measure, judge, recommend.",
             "prunus.export.planning.options:PlanOptions",
             "prunus.export.planning.command:plan"),
        Verb("layers", "Find out which blocks need their patches to meet, and which score ranks "
             "patches as they count.", "prunus.export.planning.options:LayersOptions",
             "prunus.export.planning.command:layers"),
        verb("inspect", "Show the card, the tensors, the token plan and the operators of a model "
             "file."),
        Verb("card", "Give an ONNX file of another exporter a card, so that it opens like ours.",
             verbs="prunus.apps.generic.card:VERBS", more=_CARD),
        verb("check", "Compare a model with its PyTorch network, or with another file, on real "
             "inputs, in units of the task."),
        verb("build", "Build a TensorRT engine, in a child process, with a sidecar that describes "
             "it."),
        Verb("plugin", "Build the TensorRT plugin library for local-global attention, or say what "
             "one is.", verbs=f"{_CLI}.plugin:VERBS", more=_PLUGIN),
        verb("bench", "Measure latency of models and back ends side by side and print the ratios."),
        Verb("encode", "Encode speech with a neural codec.",
             "prunus.apps.codec.options:EncodeOptions", f"{_CLI}.codec:encode"),
        Verb("decode", "Decode a .pcodec file to 16-bit WAV.",
             "prunus.apps.codec.options:DecodeOptions", f"{_CLI}.codec:decode"),
        Verb("run", "Run a model on a camera, a file or a stream, without PyTorch.",
             verbs=f"{_APPS}:run_verbs", more=_RUN),
        Verb("batch", "Run a model over any number of files, on this machine or on a Ray cluster.",
             verbs=f"{_APPS}:batch_verbs", more=_BATCH),
        Verb("serve", "Answer requests and cameras of browsers over the network.",
             verbs="prunus.apps.serve.options:VERBS", more=_SERVE),
        Verb("deploy", "Hand models to a server of another maker.",
             verbs="prunus.apps.deploy.options:VERBS", more=_DEPLOY),
        Verb("eval", "Measure accuracy on labelled data.", verbs=f"{_APPS}:eval_verbs", more=_EVAL),
        fleet("bundle", "Put models, plans and what a device must answer into one signed folder.",
              "make:bundle"),
        fleet("push", "Send a bundle to an OCI registry.", "registry:push"),
        fleet("pull", "Bring a bundle from an OCI registry, checked.", "registry:pull"),
        fleet("verify", "Check on a device that it answers as a bundle says, and how fast.",
              "verify:verify"),
        Verb("fleet", "Keys of a fleet, and a report over its devices.",
             verbs=f"{_DEVICES}.options:VERBS", more=_FLEET),
        verb("doctor", "Report versions, processor, GPU, cameras, disk and usable back ends."),
    )  # fmt: skip
    return group(Verb("prunus", _HELP, verbs=rows, more=_MORE), root_options())


_HELP = "Prune tokens of camera models, export them, check them, run them without PyTorch."
_MORE = """\b
Examples:
  prunus run pose --source 0 --sink web:8080
  prunus export evitpose --variant tiny --level L2 -o evitpose-tiny-L2.onnx

\b
Exit codes: 0 ok, 1 a check failed, 2 wrong usage or input, 3 this machine lacks something,
130 stopped with Ctrl-C. Every verb explains itself with --help.
"""
_EXPORT = """\b
Examples:
  prunus export evitpose --variant tiny --level L2 -o evitpose-tiny-L2.onnx
  prunus export unitranspose --variant small --skeleton unified23 --joints mpii16
  prunus export movenet package/ --variant lightning -o movenet_lightning.onnx
"""
_MODELS = """\b
Examples:
  prunus models
  prunus models import vitpose-small.pth --variant small -o vitpose-small.safetensors
"""
_CARD = """\b
Examples:
  prunus card add resnet.onnx --shape x:1x3x224x224 -o resnet-224.onnx
  prunus card add seg.onnx --task segmentation --before colour=rgb --after classes=@names.txt
"""
_PLUGIN = """\b
Examples:
  prunus plugin build
  prunus plugin info libprunus_local_global_attention.so
"""
_RUN = """\b
Examples:
  prunus run pose --source 0 --sink web:8080
  prunus run pose --source street.mp4 --sink street-pose.mp4 --json-out street.json
  prunus run segmentation --source 0 --sink window: --mode blur
"""
_BATCH = """\b
Examples:
  prunus batch pose videos/ --out poses
  prunus batch codec @recordings.txt --out s3://bucket/codes --ray head:6379 --actors 16
"""
_SERVE = """\b
Examples:
  prunus serve http pose
  prunus serve http selfie --port 8080 --queue 16
  prunus serve live pose
"""
_DEPLOY = """\b
Examples:
  prunus deploy triton pose segmentation codec -o repository
"""
_FLEET = """\b
Examples:
  prunus fleet key fleet
  prunus fleet report receipts/ -o report.html
"""
_EVAL = """\b
Examples:
  prunus eval pose coco/val2017 --annotations coco/person_keypoints_val2017.json
  prunus eval segmentation ADE/images/validation --masks ADE/annotations/validation \\
    --layout ade20k --model edaformer-t.onnx
"""


if __name__ == "__main__":
    command()
