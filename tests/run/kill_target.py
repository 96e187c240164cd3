"""A run that takes a second or two, to be killed by `test_resume`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from dune_bench.encoders.base import Tokens
from dune_bench.run.execute import execute
from dune_bench.run.request import RunRequest
from tests.run.fakes import ToyEncoder, fake_registry, line_card
from tests.run.recorder import Recorder


class SlowEncoder(ToyEncoder):
    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        time.sleep(0.04)
        return super()._forward(normalised, views)


def main() -> None:
    print("started", flush=True)
    cards = (line_card(1, requires={"base": "line/blocks/convex@2"}), line_card(2, protocol={"ridge": 0.5}))
    encoders = (SlowEncoder(), SlowEncoder("other", digest="d2", scale=0.3))
    execute(RunRequest(encoders=encoders, batch_size=4), Recorder(), fake_registry(*cards))


if __name__ == "__main__":
    main()
