"""A folder for plain text that a library insists on writing, removed whatever ends the process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

#: Waits until the process that it was started by closes its end or is gone, then removes.
_REMOVER = """
import shutil, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.buffer.read()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@contextlib.contextmanager
def private_folder() -> Iterator[str]:
    """A new folder that nobody else of this machine's users can read.

    A process of its own removes it, so that it goes even if this one is killed. It stays where that
    one is stopped as well: with the machine, or with a container as a whole.
    """
    command = [sys.executable, "-I", "-S", "-c", _REMOVER]
    with (
        tempfile.TemporaryDirectory(prefix="hushtune-") as folder,
        # In a session of its own, since ^C goes to all processes of the terminal's.
        subprocess.Popen([*command, folder], stdin=subprocess.PIPE, start_new_session=True),
    ):
        yield folder
