"""How much memory this machine offers, and how much this process has used."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path

import torch

#: Share of the free memory that what is kept for speed, or a micro-batch, may take.
_SHARE = 0.25

#: What Linux says of this process.
_STATUS = Path("/proc/self/status")


def room(device: torch.device | None = None) -> int:
    """Bytes that may be taken for the sake of speed: a quarter of what is free.

    Args:
        device: whose memory; None: the machine's own.
    """
    return int(_SHARE * available(device))


def available(device: torch.device | None = None) -> int:
    """Bytes that are free: of the machine, or of the container if that is less; or of a GPU."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(min(_available_to_machine(), _available_to_group()))


def resident() -> int:
    """Bytes of memory that this process holds now, as Linux counts them; elsewhere the most yet."""
    return _field(_STATUS, "VmRSS") or _most_ever()


def peak() -> int:
    """The most bytes of memory that this process has held, since `forget_peak` or its start."""
    # getrusage counts what the parent held when it started this process, Linux's status does not.
    return _field(_STATUS, "VmHWM") or _most_ever()


def peak_memory() -> int:
    """The process's peak resident memory in MiB, rounded up to a multiple of 16."""
    return _rounded(peak())


def peak_gpu_memory() -> int | None:
    """The most that tensors have taken on the GPU in MiB, rounded up likewise; None without one."""
    return _rounded(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


def forget_peak() -> bool:
    """Let the peak begin again at what is resident now; False where the system cannot do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def give_back() -> None:
    """Return freed memory to the system, which glibc would keep for this process."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _available_to_machine() -> int:
    free = _field(Path("/proc/meminfo"), "MemAvailable")
    return free or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _available_to_group() -> float:
    """What a container may still take."""
    folder = Path("/sys/fs/cgroup")
    try:
        most, now = ((folder / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(0, int(most) - int(now))
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return float("inf")


def _field(path: Path, name: str) -> int | None:
    """Bytes by name from a file of Linux's; None elsewhere."""
    with suppress(OSError):
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None


def _most_ever() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _rounded(size: int) -> int:
    return -(-size // (16 << 20)) * 16
