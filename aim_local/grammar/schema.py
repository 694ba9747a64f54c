"""From a JSON schema to a grammar (GBNF) of the answers that it allows.

What a grammar cannot hold of a schema is an error. Drawing by a grammar is sampler.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from .gbnf import check_text
from .schema_refs import Document
from .schema_rules import schema_rules

MAX_BYTES = 65536
_ANY_OBJECT = {"type": "object"}


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of the JSON that a schema allows. Raises UsageError for what is no schema, or has no grammar."""
    try:
        text = json.dumps(dict(schema), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise UsageError(f"the JSON schema is not JSON: {e}") from e
    try:
        data = text.encode()
    except UnicodeEncodeError as e:
        raise UsageError("the JSON schema holds half of a surrogate pair; give text in UTF-8") from e
    if len(data) > MAX_BYTES:
        raise UsageError(f"the JSON schema has more than {MAX_BYTES // 1024} KiB; give a smaller one")
    root = json.loads(data)
    rules = schema_rules(Document(root), root)
    grammar = "".join(f"{name} ::= {rules[name]}\n" for name in sorted(rules))
    try:
        check_text(grammar)
    except UsageError as e:
        raise UsageError(f"the JSON schema is too large: {e}") from e
    return grammar


def object_grammar() -> str:
    """Any JSON object."""
    return schema_grammar(_ANY_OBJECT)
