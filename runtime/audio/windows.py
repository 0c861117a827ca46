"""Where the windows of sliding inference lie."""

from __future__ import annotations

from prunus.runtime.errors import UsageError


def window_corners(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the top left corners of the windows that cover an image, row by row.

    The last window of a row or column is moved back inside the image, so it may overlap more. An
    image smaller than the crop gets one window.

    Args:
        size: Height and width of the image.
        crop: Height and width of a window.
        stride: Steps, rows and columns.

    Raises:
        UsageError: a size or step below 1, or a step beyond the crop (pixels would be missed).

    Example:
        >>> window_corners((1024, 2048), (1024, 1024), (768, 768))
        [(0, 0), (0, 768), (0, 1024)]
    """
    if min(*size, *crop, *stride) < 1 or stride[0] > crop[0] or stride[1] > crop[1]:
        raise UsageError(
            f"Got windows of {crop[0]}x{crop[1]} in steps of {stride[0]}x{stride[1]} over an image "
            f"of {size[0]}x{size[1]}; expected positive sizes, and steps no larger than a window."
        )
    starts = []
    for extent, length, step in zip(size, crop, stride, strict=True):
        count = max(extent - length + step - 1, 0) // step + 1
        starts.append([min(k * step, max(extent - length, 0)) for k in range(count)])
    return [(top, left) for top in starts[0] for left in starts[1]]
