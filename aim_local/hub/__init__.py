"""The hub: from a repository's name to a model in the store. Files are chosen, fetched whole, checked.

The library huggingface_hub brings the cache, tokens and switches (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT).
"""

from .answers import RepoFile
from .choose import Choice
from .listing import Listing
from .pull import Pull, Pulled, fetch, find_here, plan_pull
from .remove import Removal, plan_removal, remove

__all__ = [
    "Choice",
    "Listing",
    "Pull",
    "Pulled",
    "Removal",
    "RepoFile",
    "fetch",
    "find_here",
    "plan_pull",
    "plan_removal",
    "remove",
]
