"""How much memory there is, how much is used, and whether an error says that there was too little."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from luodi.core import measure

MB = 1e6
# What the allocators and libraries behind torch say when they get no memory.
SAID = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "could not create a memory")


def room_mb(device: str) -> float:
    """MB that this process may still take: the least of what the machine and its control groups have left, or what is
    free on an accelerator. Infinite where neither is known."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] / MB
    found = [float("inf"), *_groups()]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024 / MB)
    return min(found)


def _groups() -> list[float]:
    """What each control group of this process (v2 and v1, and those around it) has left, in MB."""
    found = []
    own = Path("/proc/self/cgroup")
    for line in own.read_text(encoding="utf-8").splitlines() if own.exists() else ():
        _, kinds, path = line.split(":", 2)
        root, limit, used = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        if "memory" in kinds.split(","):
            root, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        elif kinds:
            continue
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if (folder / limit).is_file() and (folder / used).is_file():
                text = (folder / limit).read_text(encoding="ascii").strip()
                if text.isdecimal():
                    cached = _cached(folder)
                    found.append((int(text) - int((folder / used).read_text(encoding="ascii")) + cached) / MB)
            if folder == root:
                break
    return found


def _cached(folder: Path) -> int:
    """Bytes of files that a group holds in memory only because nobody else wants it."""
    path = folder / "memory.stat"
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    stats = dict(line.split() for line in lines)
    return int(stats.get("total_inactive_file", stats.get("inactive_file", 0)))


def short_of_memory(error: BaseException) -> bool:
    """Whether this is an allocator's error."""
    if isinstance(error, MemoryError):
        return True
    name, text = type(error).__name__, str(error).lower()
    return name == "OutOfMemoryError" or (isinstance(error, RuntimeError) and any(one in text for one in SAID))


class Peak:
    """The most memory that a stretch of work takes above what was taken before it: on an accelerator by its tensors,
    else by the process (Linux: its high-water mark, less the files that it came to map, which the kernel takes back
    when it needs to)."""

    def __init__(self, device: str) -> None:
        self.device, self.known = device, True
        if device.partition(":")[0] == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        elif Path("/proc/self/clear_refs").exists():
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self.before = measure.status_bytes("self", "RssAnon")
        else:
            self.known, self.before = False, 0

    def mb(self) -> float | None:
        """MB so far; None where it cannot be known."""
        if not self.known:
            return None
        if self.device.partition(":")[0] == "cuda":
            import torch

            return max(torch.cuda.max_memory_allocated(self.device) - self.before, 0) / MB
        now = {name: measure.status_bytes("self", name) for name in ("VmHWM", "RssFile", "RssShmem")}
        return max(now["VmHWM"] - now["RssFile"] - now["RssShmem"] - self.before, 0) / MB


def limit_growth(device: str, more_mb: float) -> None:
    """The kernel (or an accelerator's allocator) refuses this process any memory beyond so many MB more than now."""
    if device.partition(":")[0] == "cuda":
        import torch

        total: Any = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(min(more_mb * MB / total, 1.0), device)
        return
    import resource

    # Not the address space: files that are only mapped, as rows are, may be larger than the memory.
    most = measure.status_bytes("self", "VmData") + int(more_mb * MB)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
