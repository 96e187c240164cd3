"""Peak private memory of a run at N and at 4 N images: the ratio is to stay <= 1.1.

    python benchmarks/memory.py [--images 60] [--resolution 336]

Each run is a process of its own: a wide, cheap encoder (384 channels) on synthetic rooms, both
tasks.  Private memory is `RssAnon` of /proc/self/status, sampled every 5 ms: pages of the mapped
feature cache belong to the file and can be dropped at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

VIEWS = 6
ENCODER = """
import torch
PATCH_SIZE = 14
def encoder():
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Conv2d(3, 384, 14, 14)
    torch.nn.init.normal_(net.weight, std=0.05, generator=generator)
    return net
"""


class Peak(threading.Thread):
    """The largest RssAnon seen, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.bytes = max(self.bytes, private_bytes())


def private_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("no RssAnon in /proc/self/status: this benchmark needs Linux")


def write_cards(folder: Path, resolution: int) -> None:
    """The two convex tasks with two λ, which is enough to run every pass."""
    import yaml

    from dune_bench.registry.lookup import load_registry

    (folder / "tasks").mkdir(parents=True)
    for name in ("semseg", "depth"):
        card = load_registry().task(f"{name}/minirooms/convex@1")
        raw = card.model_dump(mode="json", exclude_unset=True)
        raw["protocol"] |= {"lambda_per_n": [1e-2, 1e-1]}
        raw |= {"id": f"{name}/memory/convex@1", "input": {"resolution": resolution}, "suites": []}
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(raw))


def child(folder: Path, images: int, resolution: int) -> None:
    from dune_bench.run.execute import execute
    from dune_bench.run.request import RunRequest
    from tests.data.minirooms_fixture import write_tiny_minirooms

    rooms = images // VIEWS
    write_tiny_minirooms(folder / "data", rooms_train=rooms, rooms_test=rooms, views=VIEWS, size=112)
    write_cards(folder / "include", resolution)
    (folder / "wide.py").write_text(ENCODER)
    request = RunRequest(
        encoders=(str(folder / "wide.py"),),
        tasks="*/memory/*",
        include=(folder / "include",),
        data=folder / "data",
        runs=folder / "runs",
    )
    peak = Peak()
    peak.start()
    began = time.perf_counter()
    summary = execute(request)
    peak.done.set()
    peak.join()
    if summary.exit_code:
        raise SystemExit("; ".join(str(outcome.result.error) for outcome in summary.outcomes))
    print(json.dumps({"peak": peak.bytes, "seconds": time.perf_counter() - began}))


def measure(images: int, resolution: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        root = Path(__file__).resolve().parents[1]
        command = [sys.executable, __file__, "--child", folder, "--images", str(images)]
        command += ["--resolution", str(resolution)]
        env = {**os.environ, "PYTHONPATH": str(root), "DUNE_BENCH_CACHE": f"{folder}/cache"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60, help="per split")
    parser.add_argument("--resolution", type=int, default=336)
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child is not None:
        child(options.child, options.images, options.resolution)
        return
    small, large = (measure(options.images * factor, options.resolution) for factor in (1, 4))
    print(
        f"{options.images} images a split: {small['peak'] / 1e6:.0f} MB private ({small['seconds']:.0f} s); "
        f"4 x: {large['peak'] / 1e6:.0f} MB ({large['seconds']:.0f} s); "
        f"ratio {large['peak'] / small['peak']:.3f} (<= 1.1)"
    )


if __name__ == "__main__":
    main()
