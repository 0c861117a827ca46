"""Inference spatial reduction (ISR): larger key/value pooling at inference, without retraining.

Follows EDAFormer (arXiv 2407.17261, section 3.3). Keys and values come out of a pooling without
parameters, so one checkpoint serves every setting. A setting is written ``2211-222``: one digit per
encoder stage (strides 4, 8, 16, 32), then one per decoder branch at strides **8, 16, 32**, each a
factor on the pooling that was trained. The paper lists the decoder the other way round (32, 16, 8).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from prunus.runtime.errors import UsageError, nearest

ENCODER_STRIDES = (4, 8, 16, 32)
DECODER_STRIDES = (8, 16, 32)
ENCODER_POOLING = (8, 4, 2, 1)  # trained, per stage
DECODER_POOLING = (4, 2, 1)  # trained, at strides 8, 16, 32
_NAMED = {"off": "1111-111", "decoder": "1111-222", "published": "2211-222", "maximum": "2222-222"}


@dataclass(frozen=True, slots=True)
class IsrSetting:
    """Factors on the trained pooling.

    Attributes:
        encoder: Stages 1 to 4.
        decoder: Branches at strides 8, 16 and 32.
    """

    encoder: tuple[int, int, int, int] = (1, 1, 1, 1)
    decoder: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        if len(self.encoder) != len(ENCODER_POOLING) or len(self.decoder) != len(DECODER_POOLING):
            raise UsageError(
                f"Got {len(self.encoder)} encoder and {len(self.decoder)} decoder factors; "
                "expected 4 and 3."
            )
        if min(*self.encoder, *self.decoder) < 1:
            raise UsageError(f"The ISR setting {self.name} has a zero; expected factors from 1 up.")

    @property
    def encoder_pooling(self) -> tuple[int, ...]:
        """Effective pooling of stages 1 to 4."""
        return tuple(p * f for p, f in zip(ENCODER_POOLING, self.encoder, strict=True))

    @property
    def decoder_pooling(self) -> tuple[int, ...]:
        """Effective pooling at strides 8, 16 and 32."""
        return tuple(p * f for p, f in zip(DECODER_POOLING, self.decoder, strict=True))

    @property
    def name(self) -> str:
        """E.g. ``2211-222``; factors above 9 are separated by dots."""
        groups = (self.encoder, self.decoder)
        dots = "." if max(map(max, groups)) > 9 else ""
        return "-".join(dots.join(map(str, group)) for group in groups)

    @property
    def is_off(self) -> bool:
        """Whether the pooling is the trained one."""
        return max(*self.encoder, *self.decoder) == 1

    @property
    def multiple(self) -> int:
        """Input sizes divisible by this lose no row or column in any pooling."""
        cells = [s * p for s, p in zip(ENCODER_STRIDES, self.encoder_pooling, strict=True)]
        cells += [s * p for s, p in zip(DECODER_STRIDES, self.decoder_pooling, strict=True)]
        return math.lcm(*cells)

    def check_size(self, height: int, width: int, *, drop_remainder: bool = False) -> None:
        """Refuse input sizes that a pooling does not divide, or that are smaller than a pooling.

        Args:
            height: Input height in pixels.
            width: Input width in pixels.
            drop_remainder: Accept sizes whose last rows and columns of keys are left out, which is
                what the official code does with them.

        Raises:
            UsageError: naming the nearest sizes that fit.
        """
        step = self.multiple
        if not drop_remainder:
            if height % step or width % step or height < step or width < step:
                raise UsageError(
                    f"Got an input of {height}x{width}; ISR {self.name} needs multiples of {step}.",
                    f"Nearest: {' or '.join(nearest_sizes(height, width, step))}; or keep the size "
                    "and let the last keys be left out with --drop-remainder.",
                )
            return
        smallest = self.smallest_side()
        if min(height, width) < smallest:
            raise UsageError(
                f"Got an input of {height}x{width}; a pooling of ISR {self.name} is larger than "
                f"its map: both sides must be at least {smallest} pixels.",
                f"Nearest: {max(height, smallest)}x{max(width, smallest)}.",
            )

    def smallest_side(self) -> int:
        """Return the smallest side in pixels at which every map holds one pooling window."""
        sides = zip(
            (*ENCODER_STRIDES, *DECODER_STRIDES),
            (*self.encoder_pooling, *self.decoder_pooling),
            strict=True,
        )
        # A map has ceil(side / stride) cells, so one cell needs a single pixel of the last stride.
        return max(stride * (pooling - 1) + 1 for stride, pooling in sides)


def nearest_sizes(height: int, width: int, step: int) -> list[str]:
    """Return one or two sizes ``HxW`` that are multiples of `step`: the next smaller and larger."""
    sizes = []
    for rounding in (math.floor, math.ceil):
        pair = [max(rounding(side / step), 1) * step for side in (height, width)]
        sizes.append(f"{pair[0]}x{pair[1]}")
    return list(dict.fromkeys(sizes))


def parse_isr(text: str) -> IsrSetting:
    """Read ``2211-222``, ``off``, ``decoder``, ``published`` or ``maximum``.

    Raises:
        UsageError: anything else.

    Example:
        >>> parse_isr("published").encoder_pooling
        (16, 8, 2, 1)
    """
    word = _NAMED.get(text, text)
    found = re.fullmatch(r"([1-9]{4})-([1-9]{3})", word)
    if not found:
        raise UsageError(
            f"Got the ISR setting '{text}'{nearest(text, list(_NAMED))}; expected four digits, a "
            "dash and three digits.",
            f"E.g. 2211-222 (encoder stages 1-4, decoder at 1/8, 1/16, 1/32), or one of "
            f"{', '.join(_NAMED)}.",
        )
    e, d = ([int(c) for c in group] for group in found.groups())
    return IsrSetting((e[0], e[1], e[2], e[3]), (d[0], d[1], d[2]))
