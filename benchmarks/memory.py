"""The most memory that a process ever took; Linux only."""

from pathlib import Path

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """Most memory that was resident since the start or `forget_peak`, mapped files included."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no VmHWM")


def forget_peak() -> None:
    """From here on the peak counts anew, everything resident included."""
    FORGET.write_text("5")
