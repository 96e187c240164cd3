from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from dune_bench.registry.paths import cache_root, features_cache
from dune_bench.run.identity import facts_of
from dune_bench.run.request import RunRequest
from dune_bench.run.scratch import open_stores
from tests.run.fakes import ToyEncoder
from tests.run.recorder import Recorder

REQUEST = RunRequest(encoders=("toy",))


def test_unidentified_encoder_leaves_nothing_behind() -> None:
    with open_stores(REQUEST, facts_of(ToyEncoder(digest=None)), Recorder()) as stores:
        root = stores.features.root
        assert not root.is_relative_to(features_cache())
        assert not stores.heads.root.is_relative_to(REQUEST.runs)
        root.mkdir(parents=True)
    assert not root.exists()


def test_two_unidentified_encoders_never_share_features() -> None:
    facts = facts_of(ToyEncoder(digest=None))
    with open_stores(REQUEST, facts, Recorder()) as a, open_stores(REQUEST, facts, Recorder()) as b:
        assert a.features.root != b.features.root


def test_identified_encoder_uses_the_shared_cache() -> None:
    with open_stores(REQUEST, facts_of(ToyEncoder()), Recorder()) as stores:
        assert stores.features.root == features_cache()
        assert stores.heads.root == Path("runs") / "heads"


def test_folder_of_a_killed_process_is_cleared_away() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = cache_root() / "scratch" / f"{socket.gethostname()}-{process.pid}-abc"
    other = cache_root() / "scratch" / "another.host-1-abc"
    for folder in (dead, other):
        folder.mkdir(parents=True)
    with open_stores(REQUEST, facts_of(ToyEncoder(digest=None)), Recorder()):
        assert not dead.exists()
        assert other.exists()
