"""`aim-local cache`: encoded clips that are kept on disk."""

from __future__ import annotations

import time
from typing import Annotated

from aim_local.errors import ModelError

from . import _log, _out
from . import _options as opt
from ._groups import Without
from ._table import print_table, size


def cache(
    *,
    clear: Annotated[bool, opt.flag("Remove all of them.", "--clear")] = False,
    output: Annotated[opt.OutputOptions, Without("quiet")],
) -> None:
    """List the encoded clips that are kept on disk.

    The last used first, with what they take. They are used by `chat`, unless it is told --no-cache; the oldest go
    when all together take more than 2 GiB.
    """
    from aim_local.store.encoded import EncodedStore

    store = EncodedStore()
    try:
        entries = store.entries()
        removed = store.clear() if clear else None
    except OSError as e:
        raise ModelError(f"{store.folder}: {e.strerror or e}; check the folder and its permissions") from e
    total = sum(entry.n_bytes for entry in entries)
    if output.json:
        listed = [{"source": e.source, "path": str(e.path), "bytes": e.n_bytes, "used": e.used} for e in entries]
        plain = {"folder": str(store.folder), "cap": store.cap, "bytes": total, "entries": listed}
        _out.json(plain if removed is None else {**plain, "removed": removed[0]})
        return
    if removed is not None:
        _out.line(f"removed {removed[0]} encoded clips, {size(removed[1])}")
        return
    if entries:
        rows = [(time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used)), size(e.n_bytes), e.source) for e in entries]
        print_table([("LAST USED", "SIZE", "CLIP"), *rows], right=(1,))
    _log.say(f"{len(entries)} encoded clips, {size(total)} of at most {size(store.cap)}, in {store.folder}")
