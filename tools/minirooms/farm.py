"""Renders many rooms in worker processes: resumable, without orphans, with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tools.minirooms.generate import Recipe, RoomJob, make

_VIEWS_PER_PROCESS = 36


def end_with_parent() -> None:
    """Ends this worker when the command is killed, so that no orphan renders beside its successor."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("a worker needs a parent process")

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def sweep(work: Path) -> None:
    """Removes the unfinished folders of processes that are gone."""
    for folder in work.glob("*.partial"):
        try:
            os.kill(int(folder.name.split(".")[-2]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder)


def render_rooms(recipe: Recipe, jobs: list[RoomJob], work: Path, workers: int) -> None:
    """Renders the rooms that `work` lacks and prints one line for each.

    Raises TaskError for a room that cannot be made; finished rooms stay.
    """
    sweep(work)
    todo = [job for job in jobs if not (work / job.id).is_dir()]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} rooms are there", flush=True)
    # Renderer and denoiser would each take all cores: share them between the processes.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    context = multiprocessing.get_context("spawn")
    # A fresh pool per batch returns the renderer's memory.  (The executor's own max_tasks_per_child
    # can wait for ever for a process that is never started: CPython issue 115634.)
    batch = workers * max(1, _VIEWS_PER_PROCESS // max((job.views for job in todo), default=1))
    done = 0
    for start in range(0, len(todo), batch):
        with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
            futures = {pool.submit(make, recipe, job, work): job for job in todo[start : start + batch]}
            for future in as_completed(futures):
                future.result()
                done += 1
                print(f"[{done}/{len(todo)}] {futures[future].id}", flush=True)
