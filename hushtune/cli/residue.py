"""What a process leaves behind of the private text in its memory."""

from __future__ import annotations

import ctypes
import resource
import sys

#: prctl(2): whether a process may be dumped, and be traced by others of the same user.
_PR_SET_DUMPABLE = 4


def keep_memory_to_itself() -> None:
    """No core dumps from here on, neither to files nor to collectors, and no tracing by others.

    Swap and hibernation are the machine's.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
