"""From the tokens of an image to its people: what a fitted head does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.probes.base import Head
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_bodies import BodyRows, View
from dune_bench.probes.hmr_heads import Tokens, network_pixels, peaks, token_centres
from dune_bench.probes.hmr_prediction import PeoplePrediction, nobody, place
from dune_bench.probes.hmr_protocol import HmrRidge
from dune_bench.probes.hmr_windows import descriptors

HINTS = 3
"""Camera hints of a head: x/z, y/z, log f."""


class Regressor:
    """A head at work on one grid.

    Head tensors: detector_weight, detector_mean (C,), detector_bias (1,): log-odds of a head = weight
    (x − mean) + bias; threshold (1,) of the log-odds; body_weight (D, T), body_mean (D,), body_bias (T,):
    row = (x − mean) weight + bias, T = the body's columns and the head's offset from its token's centre in
    tokens (x, y).  Raises TaskError if the head is of other features.
    """

    def __init__(self, head: Head, bodies: BodyRows, grid: TokenGrid, protocol: HmrRidge) -> None:
        self.grid, self._bodies, self._protocol = grid, bodies, protocol
        t = {name: value.double() for name, value in head.tensors.items()}
        self._detector = t["detector_weight"], t["detector_mean"], t["detector_bias"]
        self._threshold = float(t["threshold"])
        self._body = t["body_weight"], t["body_mean"], t["body_bias"]
        self._windows = protocol.regression.all_windows()

    def people(self, patch: Tensor, view: View) -> PeoplePrediction:
        """Everyone in an image.  patch: (C, h, w)."""
        weight, mean, bias = self._detector
        if len(patch) != len(weight):
            raise TaskError(f"the head takes {len(weight)} channels, the features have {len(patch)}")
        patch = patch.cpu()
        if not bool(patch.isfinite().all()):
            return nobody(self._bodies.model, "its features are not finite")
        scores = (patch.permute(1, 2, 0).double() - mean) @ weight + bias
        tokens, found = peaks(scores.numpy(), self._threshold)
        if not len(tokens):
            return nobody(self._bodies.model)
        rows = self.rows(patch, tokens, view)
        return self.placed(rows, tokens, found, view)

    def rows(self, patch: Tensor, tokens: Tokens, view: View) -> Tensor:
        """(n, T) regressed rows of heads at these tokens."""
        weight, mean, bias = self._body
        x = inputs_of(patch, tokens, view, self.grid, self._protocol)
        return (x - mean) @ weight + bias

    def placed(self, rows: Tensor, tokens: Tokens, scores: np.ndarray, view: View) -> PeoplePrediction:
        """Posed bodies of rows; a failed prediction if one is no body."""
        width = self._bodies.width
        pixels = network_pixels(token_centres(tokens) + rows[:, width:].numpy(), self.grid)
        limits = self._protocol.min_depth_m, self._protocol.max_depth_m
        try:
            return place(self._bodies, self._bodies.decode(rows[:, :width], pixels, view, limits), scores)
        except TaskError as error:
            return nobody(self._bodies.model, str(error))


def inputs_of(patch: Tensor, tokens: Tokens, view: View, grid: TokenGrid, protocol: HmrRidge) -> Tensor:
    """(n, D), float64: what is regressed from: the tokens, the windows around them, the camera's hints."""
    hints = torch.from_numpy(view.hints(network_pixels(token_centres(tokens), grid)))
    return torch.cat((descriptors(patch, tokens, grid, protocol.regression.all_windows()), hints), 1)
