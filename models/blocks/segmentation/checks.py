"""What the constructors of sibling blocks refuse."""

from __future__ import annotations

from prunus.runtime.errors import UsageError


def divides(what: str, part: int, of: str, whole: int) -> None:
    """Refuse a part that does not divide its whole.

    Args:
        what: The part in words, e.g. ``a window side``.
        part: Its size.
        of: The whole in words, e.g. ``map side``.
        whole: Its size.

    Raises:
        UsageError: naming the nearest parts that divide.
    """
    if part >= 1 and whole % part == 0:
        return
    fitting = [k for k in range(1, whole + 1) if whole % k == 0]
    near = sorted(sorted(fitting, key=lambda k: abs(k - part))[:3])
    raise UsageError(
        f"Got {part} as {what} for a {of} of {whole}; expected a divisor.",
        f"Nearest: {', '.join(map(str, near))}.",
    )
