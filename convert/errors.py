"""The converter's errors and the phrases its messages share."""

from aim_local.errors import AimError


class ConvertError(AimError):
    """A checkpoint that cannot be converted, or an output that cannot be written."""


class Unsupported(ConvertError):
    """A model, or a variant of one, that no family knows. families/__init__.py adds to the line what is supported."""


def some(names: list[str], shown: int = 3) -> str:
    """`a, b, c and 7 more`: error lines name a few culprits and count the rest."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
