"""How features spread, and how alike two sets of features of the same tokens are.

All of it follows from covariances, which are summed batch by batch in float64, so that the tokens never
stand in memory together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError

Floats = NDArray[np.float64]


class CrossCovariance:
    """Running covariance of two feature vectors of the same tokens, (C, D); of one with itself, (C, C).

    Batches are centred on their own means before they are merged (Chan, Golub, LeVeque, 1983): a mean
    that is large beside the spread costs no digits.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._means: tuple[Floats, Floats] = (np.zeros(0), np.zeros(0))
        self._scatter: Floats = np.zeros((0, 0))

    def add(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> None:
        """first: (n, C), second: (n, D), a row a token, the same tokens in both, n >= 1."""
        x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
            raise TaskError(f"features {x.shape} and {y.shape} are not of the same tokens")
        means = x.mean(0), y.mean(0)
        scatter = (x - means[0]).T @ (y - means[1])
        if not self.tokens:
            self.tokens, self._means, self._scatter = len(x), means, scatter
            return
        total = self.tokens + len(x)
        moved = means[0] - self._means[0], means[1] - self._means[1]
        self._scatter += scatter + np.outer(*moved) * (self.tokens * len(x) / total)
        share = len(x) / total
        self._means = self._means[0] + share * moved[0], self._means[1] + share * moved[1]
        self.tokens = total

    @property
    def mean(self) -> Floats:
        """(C,) of the first."""
        return self._means[0]

    @property
    def matrix(self) -> Floats:
        """(C, D), divided by the number of tokens.  Raises TaskError for fewer than two tokens."""
        if self.tokens < 2:
            raise TaskError(f"{self.tokens} tokens have no covariance: analyse more images")
        return self._scatter / self.tokens


@dataclass(frozen=True)
class Components:
    """Principal components, those of most variance first.

    mean: (C,).  variances: (C,), >= 0.  directions: (C, C), a unit column each, whose entry of largest
    magnitude is positive.
    """

    mean: Floats
    variances: Floats
    directions: Floats

    @property
    def explained(self) -> Floats:
        """(C,): share of the whole variance in the first 1, 2, … components; the last is 1."""
        cumulated = np.cumsum(self.variances)
        return np.asarray(cumulated / cumulated[-1])

    @property
    def rank(self) -> int:
        """Components with variance beyond rounding."""
        least = self.variances[0] * len(self.variances) * np.finfo(np.float64).eps
        return int((self.variances > least).sum())

    def needed(self, share: float) -> int:
        """How many components explain at least `share` of the variance."""
        return int(np.searchsorted(self.explained, share)) + 1

    def scores(self, tokens: NDArray[np.floating], count: int) -> Floats:
        """tokens: (..., C).  Returns (..., count): the first components, in standard deviations over the
        tokens they were fitted to (0 for one without variance)."""
        projected = (tokens.astype(np.float64) - self.mean) @ self.directions[:, :count]
        deviations = np.sqrt(self.variances[:count])
        varies = np.arange(len(deviations)) < self.rank
        return np.asarray(np.divide(projected, deviations, out=np.zeros_like(projected), where=varies))


def principal_components(covariance: CrossCovariance) -> Components:
    """Of the covariance of features with themselves.  Raises TaskError if they do not vary."""
    variances, directions = np.linalg.eigh(covariance.matrix)
    variances, directions = np.maximum(variances[::-1], 0.0), directions[:, ::-1]
    rounding = 64 * np.finfo(np.float64).eps * np.abs(covariance.mean).max()
    if not variances[0] > rounding**2:
        raise TaskError("the features are the same in every token: there is no variance to explain")
    largest = np.abs(directions).argmax(0)
    directions = directions * np.sign(directions[largest, np.arange(len(largest))])
    return Components(covariance.mean, variances, directions)


def linear_cka(first: Components, second: Components, cross: CrossCovariance) -> float:
    """Linear centred kernel alignment of two features of the same tokens, in [0, 1] (Kornblith et al., ICML
    2019, eq. 4): 1 if they are alike up to rotation and one scale.  cross: first with second."""
    size = np.linalg.norm(first.variances) * np.linalg.norm(second.variances)
    return float(np.sum(cross.matrix**2) / size)


def principal_angles(first: Components, second: Components, cross: CrossCovariance, count: int) -> Floats:
    """Principal angles, radians, ascending, between what the first `count` components of two features of the
    same tokens say about them (Golub, Van Loan, §6.4.3; their cosines are SVCCA's correlations).

    The subspaces are of the space of tokens, spanned by the components' scores, so that the two may have
    any channels.  If a feature has fewer components, its rank counts; there are as many angles as the
    smaller subspace has dimensions.  cross: first with second.
    """
    whitened = [c.directions[:, : min(count, c.rank)] for c in (first, second)]
    whitened = [
        w / np.sqrt(c.variances[: w.shape[1]]) for w, c in zip(whitened, (first, second), strict=True)
    ]
    cosines = np.linalg.svd(whitened[0].T @ cross.matrix @ whitened[1], compute_uv=False)
    return np.asarray(np.arccos(np.clip(cosines, 0.0, 1.0)))
