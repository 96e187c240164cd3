"""Identities: what decides whether something already made may be used again.

Each key is built from an explicit allow-list.  Device, workers, threads, batch size, and protocols
of other tasks are in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dune_bench.registry.cards import InputPolicy, MetricSpec, TaskCard, fingerprint

RESIZE_RULE = "pil-bicubic-uint8@1"
"""How an image gets to its network size: Pillow's bicubic (antialiased when shrinking), uint8 in and
out; an image that has the size already is left alone."""
FEATURE_LAYOUT = 1
"""Version of what is stored for an image: float32 patch tokens, channels last, and class token."""
SELECTION = 2
"""Version of `limit_groups`: which samples a limit keeps."""

_IDENTITY = ("weights_digest", "adapter", "mean", "std", "patch_size", "options")


def feature_key(identity: Mapping[str, Any], view: str, policy: InputPolicy) -> str:
    """Identity of features but for the image, whose content hash is the other half.

    identity: `Encoder.identity()`.
    """
    return fingerprint(
        {
            "encoder": {name: identity[name] for name in _IDENTITY},
            "view": view,
            "resolution": policy.resolution,
            "resize": policy.resize,
            "resize_rule": RESIZE_RULE if policy.resize == "stretch" else None,
            "dtype": policy.dtype,
            "layout": FEATURE_LAYOUT,
        }
    )


def split_key(dataset: str, split: str, dataset_fingerprint: str, limit: int | None) -> dict[str, Any]:
    """Identity of a set of samples.  limit: None unless it leaves something out."""
    selection = None if limit is None else {"limit": limit, "rule": SELECTION}
    return {"dataset": dataset, "split": split, "content": dataset_fingerprint, "selection": selection}


def head_key(
    *,
    card: TaskCard,
    feature: str,
    split: Mapping[str, Any] | None,
    fit_version: int,
    upstream: Mapping[str, str],
    seed: int | None,
    released: str | None = None,
) -> str:
    """Identity of a fitted head.

    feature: `feature_key`.  split: `split_key` of the training data, None for a training-free task.
    upstream: role -> head key.  seed: None for a deterministic protocol.  released: sha256 of the file that
    a released head is read from; None for any other.
    """
    facts = {
        "feature": feature,
        "split": None if split is None else dict(split),
        "protocol": card.protocol_fingerprint(),
        "fit_version": fit_version,
        "upstream": dict(upstream),
        "seed": seed,
    }
    return fingerprint(facts if released is None else facts | {"released": released})


def result_key(
    *,
    heads: Sequence[str],
    split: Mapping[str, Any],
    score_version: int,
    metrics: Sequence[MetricSpec],
    encoder: Mapping[str, Any],
) -> str:
    """Identity of a result.

    heads: `head_key` per seed.  split: `split_key` of the scored data.  encoder: what stands in the
    result about the encoder beside its features: its name and how its weights were obtained.
    """
    return fingerprint(
        {
            "heads": list(heads),
            "split": dict(split),
            "score_version": score_version,
            "metrics": [metric.model_dump() for metric in metrics],
            "encoder": dict(encoder),
        }
    )


def placeholder_key(*, card: str, weights: str, task: str, overrides: Mapping[str, Any]) -> str:
    """Identity of a result that has no key of its own since the encoder could not even be loaded.

    card: the encoder card's fingerprint.  weights: as requested.  task: the task's id.
    """
    return fingerprint({"placeholder": [card, weights, task], "overrides": dict(overrides)})
