"""What is kept on disk: models by name, GGUF heads, saved conversations, files that appear whole or not at all.

Loads no native library.
"""

from .names import (
    BUNDLED,
    HOME_VARIABLE,
    MANIFEST,
    MMPROJ,
    MODEL,
    ModelEntry,
    ModelPaths,
    beside,
    bundled_folder,
    cache_folder,
    data_folder,
    find_entry,
    list_models,
    models_folder,
    read_manifest,
    resolve,
    source_of,
    state_folder,
    store_names,
    store_path,
    stored_name,
)
from .pulled import read_origin

__all__ = [
    "BUNDLED",
    "HOME_VARIABLE",
    "MANIFEST",
    "MMPROJ",
    "MODEL",
    "ModelEntry",
    "ModelPaths",
    "beside",
    "bundled_folder",
    "cache_folder",
    "data_folder",
    "find_entry",
    "list_models",
    "models_folder",
    "read_manifest",
    "read_origin",
    "resolve",
    "source_of",
    "state_folder",
    "store_names",
    "store_path",
    "stored_name",
]
