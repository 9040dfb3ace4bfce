"""The machine: what it is, how much memory a process took on it, how fast it is at best."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hushtune import memory

MIB = 2**20

_VERSIONED = ("hushtune", "torch", "transformers", "peft", "numba", "opacus", "numpy")


def describe(device: str) -> dict[str, Any]:
    """Processor, memory and versions."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "python": platform.python_version(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "gpu_gib": round(properties.total_memory / 2**30, 1)}
    for name in _VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def free_bytes(device: str) -> int:
    """Memory that a new process may take."""
    return memory.available(torch.device(device))


def synchronize(device: str) -> None:
    """Wait for what was begun."""
    if device == "cuda":
        torch.cuda.synchronize()


class Taken(NamedTuple):
    """Seconds on the clock, and seconds of all this process's threads on processors."""

    wall: float
    processor: float


class Stopwatch:
    """Measures from the end of one lap to the end of the next."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._start = Taken(0.0, 0.0)
        self.lap()

    def lap(self) -> Taken:
        """What it took since the last call."""
        synchronize(self._device)
        before, self._start = self._start, Taken(time.perf_counter(), time.process_time())
        return Taken(self._start.wall - before.wall, self._start.processor - before.processor)


def seconds(device: str, work: Callable[[], object]) -> float:
    """Wall-clock seconds of `work()`."""
    watch = Stopwatch(device)
    work()
    return watch.lap().wall


def resident(device: str) -> int:
    """Bytes of memory that this process holds now."""
    return torch.cuda.memory_allocated() if device == "cuda" else memory.resident()


def forget_peak(device: str) -> None:
    """From now on `peak` is that of what comes, where the operating system can forget it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    memory.give_back()
    memory.forget_peak()


def peak(device: str) -> int:
    """The most bytes of memory that this process has held."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else memory.peak()


def best(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes a second of a large copy (read and written), operations a second of a large product."""
    entries, width = (2**28, 8192) if device == "cuda" else (2**24, 1024)
    source = torch.ones(entries, dtype=dtype, device=device)
    target = torch.empty_like(source)
    matrix = torch.ones(width, width, dtype=dtype, device=device)
    copied = min(seconds(device, lambda: target.copy_(source)) for _ in range(3))
    multiplied = min(seconds(device, lambda: matrix @ matrix) for _ in range(3))
    return 2 * entries * dtype.itemsize / copied, 2 * width**3 / multiplied


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
