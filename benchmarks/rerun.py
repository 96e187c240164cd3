"""The same command again, with nothing to do: <= 10 s for four encoders.

    python benchmarks/rerun.py [--limit 12] [--runs DIR] [dune-bench run options]

Runs the command until everything is there (minutes, the first time), then times it once more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

ENCODERS = "dinov2_vits14_saliency,efficientnet_lite0,random_vits14,pixels"


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", default=None)
    parser.add_argument("--runs", default="runs")
    options, more = parser.parse_known_args()
    command = [
        sys.executable,
        "-m",
        "dune_bench",
        "run",
        "--encoder",
        ENCODERS,
        "--runs",
        options.runs,
        *more,
    ]
    if options.limit is not None:
        command += ["--limit", options.limit]
    first, again = timed(command), timed(command)
    print(f"first {first:.1f} s, again {again:.1f} s (<= 10), ratio {again / first:.4f}")


if __name__ == "__main__":
    main()
