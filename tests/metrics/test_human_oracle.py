"""True body parameters, written as a probe would predict them, must give no error and miss nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from dune_bench.metrics.human_errors import Body, body_errors
from dune_bench.metrics.human_matching import match_people
from dune_bench.metrics.human_statistics import image_statistics, pooled_metrics
from dune_bench.models.body_models import BodyModel, load_body_model
from dune_bench.models.rotations import rotation_from_6d, rotation_to_6d, rotvec_to_matrix

GOLDEN = Path(__file__).parents[1] / "golden" / "anny_bodies.safetensors"
K = np.array([[400.0, 0, 224], [0, 400, 224], [0, 0, 1]])


def posed(body: BodyModel, parameters: dict[str, torch.Tensor], T: torch.Tensor) -> list[Body]:
    out = body(parameters).moved(T)
    parts = zip(out.vertices, out.keypoints, out.joints[:, body.root], strict=True)
    return [Body(*(x.double().numpy() for x in person)) for person in parts]


def project(people: list[Body]) -> np.ndarray:
    points = np.stack([p.joints for p in people]) @ K.T
    return points[..., :2] / points[..., 2:]


def test_true_parameters_give_no_error_and_f1_of_100() -> None:
    """< 0.1 mm in float32, through the 6-D form, prediction and truth in different orders."""
    body = load_body_model("anny")
    stored = load_file(GOLDEN)
    truth = {k: torch.from_numpy(stored[k][:3]).float() for k in ("phenotype", "pose", "root")}
    T = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 1.0], [0, 1, 0, 4], [0, 0, 0, 1]]).repeat(3, 1, 1)
    T[:, 0, 3] = torch.tensor([-1.0, 0.2, 1.3])
    order = torch.tensor([2, 0, 1])
    predicted = {k: v[order] for k, v in truth.items()}
    predicted["pose"] = rotation_from_6d(rotation_to_6d(rotvec_to_matrix(predicted["pose"])))
    people, found = posed(body, truth, T), posed(body, predicted, T[order])
    for mode in ("strict", "multihmr-compat"):
        matching = match_people(project(found), project(people), mode)  # type: ignore[arg-type]
        assert {(p, int(order[p])) for p, _ in matching.matches} == set(matching.matches)
        errors = [body_errors(found[p], people[t]) for p, t in matching.matches]
        stats = {k: v[None] for k, v in image_statistics(matching, errors).items()}
        metrics = pooled_metrics(stats, np.ones((1, 1)))
        assert metrics["f1"][0] == metrics["precision"][0] == metrics["recall"][0] == 100
        for name in ("pve_mm", "pa_pve_mm", "mpjpe_mm", "pa_mpjpe_mm", "pve_mm@miss350mm"):
            assert metrics[name][0] < 0.1
        assert metrics["depth_error_m"][0] < 1e-4


def test_wrong_body_is_no_zero_error() -> None:
    """The oracle's numbers come from the bodies: another pose or shape is seen by all errors."""
    body = load_body_model("anny")
    stored = load_file(GOLDEN)
    truth = {k: torch.from_numpy(stored[k][:1]).float() for k in ("phenotype", "pose", "root")}
    T = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 1.0], [0, 1, 0, 4], [0, 0, 0, 1]])
    (person,) = posed(body, truth, T)
    for change in ({"pose": torch.zeros_like(truth["pose"])}, {"phenotype": 1 - truth["phenotype"]}):
        errors = body_errors(posed(body, truth | change, T)[0], person)
        assert all(errors[name] > 1 for name in ("pve_mm", "pa_pve_mm", "mpjpe_mm", "pa_mpjpe_mm"))
    shifted = truth | {"root": truth["root"] + torch.tensor([0.0, 0.5, 0.0])}
    assert abs(body_errors(posed(body, shifted, T)[0], person)["depth_error_m"] - 0.5) < 1e-4
