"""How far position alone gets: segmentation from (row, column), without an image.

`python -m tools.minirooms.position_prior [--root DIR]` prints the mIoU on the test rooms of the best guess
per position, fitted on the training rooms' labels.  An encoder that is no better than this reads the
camera's habits, not the picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import SegSample
from tools.minirooms.contact_sheet import opened


def class_maps(data: MiniRooms, split: str) -> NDArray[np.float64]:
    """(K, H, W) share of the split's images that show each class at each pixel."""
    total: NDArray[np.float64] | None = None
    samples = data.samples(SegSample, split)
    for sample in samples:
        assert isinstance(sample, SegSample)
        shown = np.stack([sample.labels == k for k in range(len(data.classes))]).astype(np.float64)
        total = shown if total is None else total + shown
    assert total is not None
    return np.asarray(total / len(samples))


def position_guess(maps: NDArray[np.float64], sigma: float) -> NDArray[np.int64]:
    """(H, W) most frequent class around each pixel.  sigma: pixels of smoothing."""
    smooth = np.stack([gaussian_filter(m, sigma, mode="nearest") for m in maps])
    return np.asarray(smooth.argmax(axis=0))


def mean_iou(data: MiniRooms, split: str, guess: NDArray[np.int64]) -> float:
    """Mean IoU of one guess for all images, over the classes the split shows; 255 is ignored."""
    k = len(data.classes)
    confusion = np.zeros((k, k), np.int64)
    for sample in data.samples(SegSample, split):
        assert isinstance(sample, SegSample)
        valid = sample.labels < k
        pairs = sample.labels[valid].astype(np.int64) * k + guess[valid]
        confusion += np.bincount(pairs, minlength=k * k).reshape(k, k)
    hit = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hit
    return float((hit[union > 0] / union[union > 0]).mean())


def main() -> None:
    """Prints a markdown table."""
    parser = argparse.ArgumentParser(description="Segmentation of MiniRooms from position alone.")
    parser.add_argument("--name", default="minirooms", help="with or without its version")
    parser.add_argument("--root", type=Path, help="folder with the card; default: the shipped data")
    options = parser.parse_args()
    data = opened(options.name, options.root)
    maps = class_maps(data, "train")
    print("| smoothing | mIoU | classes guessed |\n|---|---|---|")
    for sigma in (8.0, 16.0, 32.0):
        guess = position_guess(maps, sigma)
        shown = ", ".join(data.classes[k] for k in np.unique(guess))
        print(f"| {sigma:.0f} px | {100 * mean_iou(data, 'test', guess):.1f} % | {shown} |")


if __name__ == "__main__":
    main()
