"""The converter's error. Knows nothing else."""

from aim_local.errors import AimError


class ConvertError(AimError):
    """A checkpoint that cannot be converted, or an output that cannot be written."""


def some(names: list[str], shown: int = 3) -> str:
    """`a, b, c and 7 more`: error lines name a few culprits and count the rest."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
