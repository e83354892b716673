"""How much memory a computation may take."""

import sys
from pathlib import Path

import torch

__all__ = ["available_memory"]


def available_memory(device: torch.device) -> int:
    """Bytes that can be taken on ``device`` now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 << 30
