"""The converter's error and the phrases its messages share."""

from aim_local.errors import AimError

SUPPORTED = "LLaVA-OneVision (Qwen2 with SigLIP) and LLaVA-1.5 (LLaMA or Vicuna with CLIP)"


class ConvertError(AimError):
    """A checkpoint that cannot be converted, or an output that cannot be written."""


def some(names: list[str], shown: int = 3) -> str:
    """`a, b, c and 7 more`: error lines name a few culprits and count the rest."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def unsupported(what: str) -> ConvertError:
    return ConvertError(f"{what}; supported are {SUPPORTED}")
