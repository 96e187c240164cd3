"""What tasks and metrics mean, in one sentence each, for readers who never saw the project.

The definitions to the letter stand in the documentation of each task; reports print these sentences
beside the numbers.
"""

from __future__ import annotations

import re

PROBES: dict[str, str] = {
    "semseg": "Semantic segmentation: say of every pixel what it shows: wall, chair, person …",
    "depth": "Depth from one image: say for every pixel how far away it is, in metres.",
    "correspondence": "Correspondence: find the point of one picture again in another one of the same room.",
    "recon3d": "3D reconstruction from two pictures: where the cameras stood, and what they saw.",
    "reloc": "Relocalisation: say where a camera stood, from its picture and a reference picture.",
    "hmr": "Human mesh recovery: find the people of a picture, their pose and their body in 3D.",
}
"""Probe -> what is asked of the encoder's features."""

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_METRICS: tuple[tuple[str, str], ...] = (
    (
        r"miou",
        "Mean over classes of the intersection over union (IoU): the area where prediction and truth agree, "
        "by the area that either gives to the class. 100 is perfect",
    ),
    (r"iou", "Intersection over union of one class: 100 is perfect, 0 is never right"),
    (r"pixel_acc", "Share of the labelled pixels whose class is right"),
    (r"rmse_m", "Root mean square error of depth, in metres, per image, then averaged. 0 is perfect"),
    (r"abs_rel", "Mean of the error of depth by the true depth. 0.1 means 10 % off on average"),
    (r"delta1", "Share of the pixels whose depth is within a factor of 1.25 of the truth"),
    (r"rmse_log", "Root mean square error of the logarithm of depth. 0.1 is about 10 %"),
    (
        rf"recall@({_NUMBER})(px|cm)",
        "Share of the asked points that are found again within {0} {1} of the true place",
    ),
    (rf"rra@({_NUMBER})deg", "Share of the pairs whose relative rotation is right within {0} degrees"),
    (
        rf"rta@({_NUMBER})deg",
        "Share of the pairs whose direction of translation, up to its sign, is right within {0} degrees",
    ),
    (
        rf"rta_signed@({_NUMBER})deg",
        "Share of the pairs whose direction of translation is right within {0} degrees",
    ),
    (
        rf"maa(?:_signed|_exact)?@({_NUMBER})deg",
        "Mean average accuracy of the relative pose: the share of right pairs (rotation and direction), "
        "averaged over thresholds up to {0} degrees",
    ),
    (
        rf"inliers@({_NUMBER})cm",
        "Share of the true 3D points with a predicted point nearer than {0} cm; a missing one is a miss",
    ),
    (r"coverage", "Share of the true 3D points that have a predicted point at all"),
    (r"pointmap_m", "Mean distance of predicted to true 3D points, in metres"),
    (r"pointmap_scaled_m", "The same distance after the best common scale: shape without size"),
    (r"accuracy_m", "Mean distance of a predicted 3D point to the nearest true one"),
    (r"completeness_m", "Mean distance of a true 3D point to the nearest predicted one"),
    (r"chamfer_m", "Mean of accuracy and completeness of the point cloud"),
    (
        rf"(?:precision|success)@({_NUMBER})cm_({_NUMBER})deg",
        "Share of the pictures whose camera is placed within {0} cm and {1} degrees",
    ),
    (
        rf"auc@({_NUMBER})cm_({_NUMBER})deg",
        "Area of precision (pose within {0} cm and {1} degrees) over the share of pictures answered, "
        "most confident first. 1 is perfect",
    ),
    (
        rf"precision_vcre@({_NUMBER})(px|diag)",
        "Share of the pictures whose virtual points are reprojected (VCRE) within {0} {1}",
    ),
    (
        rf"auc_vcre@({_NUMBER})(px|diag)",
        "Area of precision (virtual points reprojected within {0} {1}) over the share of pictures answered, "
        "most confident first. 1 is perfect",
    ),
    (r"median_trans_m", "Median error of the camera's place, in metres, averaged over scenes"),
    (r"median_rot_deg", "Median error of the camera's rotation, in degrees, averaged over scenes"),
    (r"median_vcre_px", "Median reprojection error of virtual points, in pixels, averaged over scenes"),
    (r"answered", "Share of the pictures that got a valid answer"),
    (r"pve_mm", "Mean distance of predicted to true body vertices, roots aligned, of the people found"),
    (r"pa_pve_mm", "Mean distance of body vertices after the best rotation, scale and shift"),
    (r"mpjpe_mm", "Mean distance of predicted to true body joints, roots aligned, of the people found"),
    (r"pa_mpjpe_mm", "Mean distance of joints after the best rotation, scale and shift"),
    (r"depth_error_m", "Mean error of a person's distance from the camera, in metres"),
    (r"precision", "Share of the people predicted that are there"),
    (r"recall", "Share of the people there that were found"),
    (r"f1", "Harmonic mean of precision and recall of finding people. 100 is perfect"),
)  # fmt: skip
"""Pattern of a whole metric id -> its sentence; {0}, {1} are the pattern's groups."""

_DIAGONAL = re.compile(rf"({_NUMBER}) diag\b")
_SUFFIXES: tuple[tuple[str, str], ...] = (
    (r"@aligned", "after the prediction is scaled to the image's true median, so that scale does not count"),
    (r"@seen", "only on furniture models that training also showed"),
    (r"@unseen", "only on furniture models that training never showed"),
    (rf"@miss({_NUMBER})(mm|m)", "where a missed person counts as {0} {1}, and nobody counts more"),
    (
        rf"_rot({_NUMBER})_({_NUMBER})deg",
        "only pairs whose views are turned by {0} to {1} degrees against each other",
    ),
    (rf"_covis({_NUMBER})_({_NUMBER})", "only pairs that share {0} to {1} % of the first view"),
    (r"@multihmr", "with people matched as by the published Multi-HMR evaluation"),
    (rf"_light({_NUMBER})_({_NUMBER})", "only pairs whose exposures differ by a factor of {0} to {1}"),
)
_GROUPS = {"minirooms": "rooms"}
"""Dataset (without version) -> what its groups are."""


def explain(metric: str) -> str | None:
    """A sentence on a metric id such as `recall@10px_rot0_15deg`, without a full stop; None for an
    unknown one (of a plug-in)."""
    for pattern, text in _METRICS:
        if match := re.fullmatch(pattern, metric):
            return _DIAGONAL.sub(r"\1 of the image's diagonal", text.format(*match.groups()))
    for pattern, text in _SUFFIXES:
        if match := re.search(f"{pattern}$", metric):
            base = explain(metric[: match.start()])
            return None if base is None else f"{base}; {text.format(*match.groups())}"
    return None


def group_word(dataset: str) -> str:
    """What the statistics count of a dataset such as `minirooms@1`: rooms, or groups in general."""
    name = dataset.partition("@")[0].partition("-")[0].lower()
    return _GROUPS.get(name, "groups")
