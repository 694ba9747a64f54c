"""Weight types: their names, their sizes, and which one a tensor gets.

A pure plan over names and shapes; the numbers themselves are made by `gguf.quants` (writer.py).
"""

from collections.abc import Sequence
from math import prod

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from .errors import ConvertError

WEIGHT_TYPES: dict[str, GGMLQuantizationType] = {
    "f32": GGMLQuantizationType.F32,
    "f16": GGMLQuantizationType.F16,
    "bf16": GGMLQuantizationType.BF16,
    "q8_0": GGMLQuantizationType.Q8_0,
    "q5_1": GGMLQuantizationType.Q5_1,
    "q5_0": GGMLQuantizationType.Q5_0,
    "q4_1": GGMLQuantizationType.Q4_1,
    "q4_0": GGMLQuantizationType.Q4_0,
}

FILE_TYPES: dict[GGMLQuantizationType, LlamaFileType] = {
    GGMLQuantizationType.F32: LlamaFileType.ALL_F32,
    GGMLQuantizationType.F16: LlamaFileType.MOSTLY_F16,
    GGMLQuantizationType.BF16: LlamaFileType.MOSTLY_BF16,
    GGMLQuantizationType.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    GGMLQuantizationType.Q5_1: LlamaFileType.MOSTLY_Q5_1,
    GGMLQuantizationType.Q5_0: LlamaFileType.MOSTLY_Q5_0,
    GGMLQuantizationType.Q4_1: LlamaFileType.MOSTLY_Q4_1,
    GGMLQuantizationType.Q4_0: LlamaFileType.MOSTLY_Q4_0,
}

ORIGIN_KEY = "aim.origin"  # Checkpoint.origin, in both files of a conversion
MMPROJ_ARCH = "clip"  # general.architecture of every mmproj file, whatever tower is in it
UNQUANTIZED = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
EMBEDDINGS = ("token_embd.weight", "output.weight")


def parse_type(name: str, option: str, more: Sequence[str] = ()) -> GGMLQuantizationType:
    """The type called `name`; `option` is what to blame in the error, which names `more` as allowed too."""
    found = WEIGHT_TYPES.get(name.lower())
    if found is not None:
        return found
    hint = ""
    if "_k" in name.lower() or name.lower().startswith("iq"):
        hint = "; K-quants are for language towers"
    raise ConvertError(
        f"{option} {name!r} is not a type this converter writes; it writes {', '.join([*WEIGHT_TYPES, *more])}{hint}"
    )


def is_quantized(kind: GGMLQuantizationType) -> bool:
    return kind not in UNQUANTIZED


def fit_row(wanted: GGMLQuantizationType, n_row: int) -> GGMLQuantizationType:
    """`wanted`, or F16 where a row of `n_row` values is not whole blocks (an ffn of 4304 is 134.5 x 32)."""
    block, _ = GGML_QUANT_SIZES[wanted]
    return wanted if n_row % block == 0 else GGMLQuantizationType.F16


def text_type(name: str, shape: Sequence[int], wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """Norms and biases stay F32; the embedding tables lose most from few bits, so below 8 bits they get Q8_0."""
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if name in EMBEDDINGS and is_quantized(wanted):
        wanted = GGMLQuantizationType.Q8_0
    return fit_row(wanted, shape[-1])


def vision_type(name: str, shape: Sequence[int], wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """Vectors and positions stay F32 (they are added, not multiplied); ggml's im2col wants its kernel F16 or F32."""
    if len(shape) == 1 or name == "v.position_embd.weight":
        return GGMLQuantizationType.F32
    if name == "v.patch_embd.weight":
        return wanted if wanted == GGMLQuantizationType.F32 else GGMLQuantizationType.F16
    return fit_row(wanted, shape[-1])


def n_bytes(shape: Sequence[int], kind: GGMLQuantizationType) -> int:
    """Bytes of a tensor of `shape` stored as `kind`."""
    block, size = GGML_QUANT_SIZES[kind]
    return int(prod(shape) // block * size)
