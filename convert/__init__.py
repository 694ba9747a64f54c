"""Converter: a Hugging Face checkpoint folder into GGUF files for both towers, and llama.cpp's quantiser for one."""

from .errors import ConvertError
from .pipeline import TEXT_TYPES, ConvertConfig, ConvertResult, convert
from .quantize import quantize
from .quantize_text import QUANTIZE_TYPES
from .quantize_vision import quantize_vision
from .quantized import QuantizeResult
from .refusals import check_folder
from .types import WEIGHT_TYPES

__all__ = [
    "QUANTIZE_TYPES",
    "TEXT_TYPES",
    "WEIGHT_TYPES",
    "ConvertConfig",
    "ConvertError",
    "ConvertResult",
    "QuantizeResult",
    "check_folder",
    "convert",
    "quantize",
    "quantize_vision",
]
