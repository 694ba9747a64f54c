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
    list_models,
    models_folder,
    read_manifest,
    resolve,
    source_of,
    state_folder,
    store_names,
    store_path,
)

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
    "list_models",
    "models_folder",
    "read_manifest",
    "resolve",
    "source_of",
    "state_folder",
    "store_names",
    "store_path",
]
