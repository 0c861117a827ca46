"""The apps as data: a row makes `prunus run NAME`, `prunus eval NAME` and `prunus batch NAME`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class App:
    """One task as people use it.

    References are ``module:attribute`` and are imported when the verb is called.

    Attributes:
        task: Name of the task, and of the verb where that has no other.
        help: What running it does, one line; the rest of the help is in the docstring of `options`.
        options: Dataclass made with `runtime.options`.
        run: ``run(options, *, quiet)``, which returns an `apps.live.summary.Summary`.
        judges: What evaluating it measures, one line; empty, as the next two, where nothing does.
        eval_options: Dataclass as above, with a field `output`.
        evaluate: ``evaluate(options, progress)``, which returns an `apps.common.scores.Scores`.
        runner: ``runner(path, backend, threads)``, which returns a `RunnerSpec` of the pipeline for
            `prunus bench`; empty where only the engine is measured.
        verb: Name of the verb of `prunus run`, where it is not the task's.
        batches: What comes out of a batch, one line; empty, as the next two, where there is none.
        batch_options: Dataclass as above, with a field `work`.
        batch: Its `apps.batch.task.BatchTask`.
    """

    task: str
    help: str
    options: str
    run: str
    judges: str = ""
    eval_options: str = ""
    evaluate: str = ""
    runner: str = ""
    verb: str = ""
    batches: str = ""
    batch_options: str = ""
    batch: str = ""


APPS = (
    App(
        "pose",
        "Draw the skeletons of people on a picture, a folder, a video, a camera or a stream.",
        "prunus.apps.pose.options:PoseOptions",
        "prunus.apps.pose.app:run_pose",
        "Report COCO AP, OKS and PCK of a pose model on any COCO-format folder.",
        "prunus.apps.pose.options:PoseEvalOptions",
        "prunus.apps.pose.app:evaluate_pose",
        "prunus.apps.bench.runs:people_runner",
        batches="Write the people and joints of any number of pictures and videos.",
        batch_options="prunus.apps.pose.options:PoseBatchOptions",
        batch="prunus.apps.pose.batch:PoseBatch",
    ),
    App(
        "segmentation",
        "Show what each pixel is, or blur or replace what is behind a person.",
        "prunus.apps.segmentation.options:SegmentationOptions",
        "prunus.apps.segmentation.app:run_segmentation",
        "Report mIoU, pixel accuracy and a table of classes on any folder of pictures and masks.",
        "prunus.apps.segmentation.options:SegmentationEvalOptions",
        "prunus.apps.segmentation.app:evaluate_segmentation",
        "prunus.apps.bench.runs:scene_runner",
        batches="Write the masks of any number of pictures and videos.",
        batch_options="prunus.apps.segmentation.options:SegmentationBatchOptions",
        batch="prunus.apps.segmentation.batch:SegmentationBatch",
    ),
    App(
        "codec",
        "Send speech through a codec: microphone to speaker, file to file, machine to machine.",
        "prunus.apps.codec.options:CodecOptions",
        "prunus.apps.codec.live:run_codec",
        "Report rate, distortion, word errors, speaker and codebooks of a codec, beside its peers.",
        "prunus.apps.codec.options:CodecEvalOptions",
        "prunus.apps.codec.evaluate:evaluate",
        batches="Write the codes of any number of recordings.",
        batch_options="prunus.apps.codec.options:CodecBatchOptions",
        batch="prunus.apps.codec.batch:CodecBatch",
    ),
    App(
        "separation",
        "Separate the voice of one face from what a microphone or a clip holds.",
        "prunus.apps.separation.options:SeparationOptions",
        "prunus.apps.separation.app:run_separation",
        "Report SI-SDRi, PESQ, STOI and word errors of a separator on any folder of mixtures.",
        "prunus.apps.separation.options:SeparationEvalOptions",
        "prunus.apps.separation.evaluate:evaluate",
        batches="Write one voice of any number of clips.",
        batch_options="prunus.apps.separation.options:SeparationBatchOptions",
        batch="prunus.apps.separation.batch:SeparationBatch",
    ),
    App(
        "generic",
        "Run any network once, on arrays, pictures or sounds, and say what comes out.",
        "prunus.apps.generic.options:TensorsOptions",
        "prunus.apps.generic.app:run_tensors",
        verb="tensors",
    ),
)
