"""Fill a cache folder with shards of rendered people and their masks.

``python -m prunus.models.training.rendering.masks --count 6000 --opencv-data DIR
--panoramas package``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunus.models.training.pictures import fill
from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.mask_studio import MaskStudio
from prunus.models.training.rendering.panoramas import read_panoramas
from prunus.models.training.segmentation.shards import pack, write_masks


def render_masks(
    out: Path, count: int, seed: int, backgrounds: Backgrounds, shard: int = 250
) -> None:
    """Render until the folder holds ``count`` pictures of this seed, shard by shard."""

    def write(path: Path, own_seed: int, number: int) -> None:
        studio = MaskStudio(own_seed, backgrounds)
        write_masks(path, pack([studio.shoot() for _ in range(number)]))

    fill(out, "masks", write, count=count, seed=seed, shard=shard)


def main() -> None:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(description="Render synthetic people with exact masks.")
    parser.add_argument("--out", type=Path, default=Path(".cache/segmentation/synthetic"))
    parser.add_argument("--count", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--opencv-data", type=Path, help="sample data of the Debian package opencv-doc (vtest.avi)"
    )
    parser.add_argument(
        "--panoramas", type=Path, help="unpacked npm package @pmndrs/assets 1.7.0 (CC0)"
    )
    args = parser.parse_args()
    more = read_panoramas(args.panoramas) if args.panoramas else []
    render_masks(args.out, args.count, args.seed, Backgrounds(args.opencv_data, more))


if __name__ == "__main__":
    main()
