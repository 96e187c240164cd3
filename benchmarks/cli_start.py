"""Start of the command line, warm, against a bare interpreter: `python benchmarks/cli_start.py`.

Prints, of each command, the least and the median seconds of 10 starts, and whether it imports torch.
Bar: `--help` and `list` at most 0.3 s, no torch.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = (("--help",), ("list",), ("show", "dune_vitb"), ("run", "--help"))
STARTS = 10


def seconds(command: list[str]) -> list[float]:
    """Wall time of each start."""
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return times


def imports_torch(arguments: tuple[str, ...]) -> bool:
    """Whether torch is among the modules of a start, by the interpreter's own log of imports."""
    command = [sys.executable, "-X", "importtime", "-m", "dune_bench", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def main() -> None:
    bare = min(seconds([sys.executable, "-c", "pass"]))
    print(f"{'bare python':<20} {bare:.3f} s")
    for arguments in COMMANDS:
        times = seconds([sys.executable, "-m", "dune_bench", *arguments])
        torch = "torch imported" if imports_torch(arguments) else "no torch"
        print(
            f"{' '.join(arguments):<20} {min(times):.3f} s, median {statistics.median(times):.3f} s, {torch}"
        )


if __name__ == "__main__":
    main()
