"""What is kept on disk: models by name, GGUF heads, saved conversations, files that appear whole or not at all.

Loads no native library.
"""

from .fetched import forget_fetched, note_fetched, was_fetched
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
    exact_name,
    find_entry,
    list_models,
    models_folder,
    pulled_names,
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
    "exact_name",
    "find_entry",
    "forget_fetched",
    "list_models",
    "models_folder",
    "note_fetched",
    "pulled_names",
    "read_manifest",
    "read_origin",
    "resolve",
    "source_of",
    "state_folder",
    "store_names",
    "store_path",
    "stored_name",
    "was_fetched",
]
