"""Failures of compiled code that Python does not count among its errors.

A panic of compiled Rust, as of a tokenizer that meets a text that its makers did not think of, is a
`BaseException`. It would go past everything that keeps what an error says from being seen, and
would end a process, so that whether there is an answer tells of a text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Panic(RuntimeError):
    """Compiled code gave up; the message holds what it said."""


@contextlib.contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raises `Panic` for whatever is no `Exception`, unless somebody wants the process to end."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as panic:
        raise Panic(repr(panic)) from None
