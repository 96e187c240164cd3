"""The run: everything the request asks for that is not there yet, one atomic result at a time."""

from __future__ import annotations

from dune_bench.errors import ExitCode
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.results.store import ResultStore
from dune_bench.run.cache import chosen_budget
from dune_bench.run.data import Data
from dune_bench.run.encoder_run import EncoderRun, RunContext
from dune_bench.run.lock import run_lock
from dune_bench.run.plan import make_plan
from dune_bench.run.probing import make_probe
from dune_bench.run.request import Outcome, RunRequest, RunSummary
from dune_bench.run.ui import RunUI, SilentUI


def execute(request: RunRequest, ui: RunUI | None = None, registry: Registry | None = None) -> RunSummary:
    """Evaluates the request's encoders on its tasks and returns every outcome.

    A finished result of the same identity is used again; a failed or damaged one is made anew.
    Killed at any moment, the same request goes on where it stopped.  registry: by default this
    process's, with `request.include`.
    Raises UsageError for a request that cannot be meant, before anything is computed, and if another
    run holds the runs folder.  What fails within one (encoder, task) is in its outcome.
    """
    ui = ui or SilentUI()
    chosen_budget()  # an unreadable one is refused before anything is written
    registry = registry or load_registry(request.include)
    plan = make_plan(request, registry)
    probes = {node.id: make_probe(node.card, registry) for node in plan.tasks}
    total = len(plan.encoders) * len(plan.reported)
    outcomes: list[Outcome] = []
    with run_lock(request.runs):
        results = ResultStore(request.runs)
        context = RunContext(request, registry, plan, probes, Data(request, registry), results, ui)
        for source in plan.encoders:
            for outcome in EncoderRun(source, context):
                outcomes.append(outcome)
                ui.outcome(outcome, len(outcomes), total)
                if outcome.code is not ExitCode.OK and not request.keep_going:
                    ui.message(f"stopped at the first failure, {total - len(outcomes)} not run")
                    return RunSummary(tuple(outcomes), request.runs)
    return RunSummary(tuple(outcomes), request.runs)
