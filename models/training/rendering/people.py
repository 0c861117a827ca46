"""Fill a cache folder with shards of rendered people.

``python -m prunus.models.training.rendering.people --out .cache/training/synthetic --count 20000``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from prunus.models.training.pictures import encode, fill
from prunus.models.training.pose.shards import PeopleShard, write_shard
from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.synthetic_people import PeopleStudio


def render_shard(studio: PeopleStudio, count: int) -> PeopleShard:
    """Shoot ``count`` pictures."""
    shots = [studio.shoot() for _ in range(count)]
    return PeopleShard(
        [encode(shot.image) for shot in shots],
        np.stack([shot.keypoints for shot in shots]),
        np.stack([shot.box for shot in shots]),
    )


def render_people(
    out: Path, count: int, seed: int, opencv_data: Path | None, shard: int = 500
) -> None:
    """Render until the folder holds ``count`` pictures of this seed, shard by shard."""
    backgrounds = Backgrounds(opencv_data)

    def write(path: Path, own_seed: int, number: int) -> None:
        write_shard(path, render_shard(PeopleStudio(own_seed, backgrounds), number))

    fill(out, "people", write, count=count, seed=seed, shard=shard)


def main() -> None:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(description="Render synthetic people with exact joints.")
    parser.add_argument("--out", type=Path, default=Path(".cache/training/synthetic"))
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--opencv-data", type=Path, help="sample data of the Debian package opencv-doc (vtest.avi)"
    )
    args = parser.parse_args()
    render_people(args.out, args.count, args.seed, args.opencv_data)


if __name__ == "__main__":
    main()
