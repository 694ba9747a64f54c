"""Converter: a Hugging Face checkpoint folder into GGUF files for both towers, and llama.cpp's quantiser for one."""

from .errors import ConvertError
from .pipeline import ConvertConfig, ConvertResult, convert

__all__ = ["ConvertConfig", "ConvertError", "ConvertResult", "convert"]
