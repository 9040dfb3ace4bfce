"""How much memory this machine offers, and how much this process has used."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import torch

#: Share of the free memory that what is kept for speed, or a micro-batch, may take.
_SHARE = 0.25


def room(device: torch.device | None = None) -> int:
    """Bytes that may be taken for the sake of speed: a quarter of what is free.

    Args:
        device: whose memory; None: the machine's own.
    """
    if device is not None and device.type == "cuda":
        return int(_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(_SHARE * available())


def available() -> int:
    """Bytes that the machine, or the container if that is less, still offers."""
    return int(min(_available_to_machine(), _available_to_group()))


def peak_memory() -> int:
    """The process's peak resident memory in MiB, rounded up to a multiple of 16."""
    return -(-_peak_kibibytes() // (16 * 1024)) * 16


def peak_gpu_memory() -> int | None:
    """The most that tensors have taken on the GPU in MiB, rounded up likewise; None without one."""
    if not torch.cuda.is_available():
        return None
    return -(-torch.cuda.max_memory_allocated() // (16 << 20)) * 16


def forget_peak() -> bool:
    """Let the peak begin again at what is resident now; False where the system cannot do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_kibibytes() -> int:
    # getrusage counts what the parent held when it started this process, Linux's status does not.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _available_to_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except OSError:  # no Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _available_to_group() -> float:
    """What a container may still take."""
    folder = Path("/sys/fs/cgroup")
    try:
        most, now = ((folder / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(0, int(most) - int(now))
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return float("inf")
