"""What a two-view decoder says of one pair, in numpy: the side of it that matching and poses see.

A map covers the whole of its original image, whatever the sizes of both: cell (y, x) of (h, w) is
centred at ((x + ½)·W / w, (y + ½)·H / h) of an image of H × W pixels, stretched or not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, Size, pixel_centres, scale_points, unproject
from dune_bench.geometry.poses import transform
from dune_bench.geometry.sampling import sample_map
from dune_bench.models.two_view_output import ViewOutput

Floats = NDArray[np.float64]
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class ViewMaps:
    """One view of a pair, float32.

    points: (h, w, 3) metres, OpenCV axes, in the frame of **camera 1** for both views.  confidence:
    (h, w), of the points.  descriptors: (h, w, d), unit length.  descriptor_confidence: (h, w).
    Raises TaskError for maps of different grids.
    """

    points: Maps
    confidence: Maps
    descriptors: Maps
    descriptor_confidence: Maps

    def __post_init__(self) -> None:
        maps = (self.points, self.confidence, self.descriptors, self.descriptor_confidence)
        shapes, grid = [values.shape for values in maps], self.confidence.shape
        if len(grid) != 2 or shapes != [(*grid, 3), grid, (*grid, self.descriptors.shape[-1]), grid]:
            raise TaskError(f"maps of shapes {shapes} do not belong to one view")

    @property
    def grid(self) -> Size:
        """(h, w) cells."""
        return self.confidence.shape[0], self.confidence.shape[1]

    @property
    def finite(self) -> bool:
        """Whether everything that is said of this view is a number."""
        maps = (self.points, self.confidence, self.descriptors, self.descriptor_confidence)
        return all(bool(np.isfinite(values).all()) for values in maps)

    def centres(self, size: Size) -> Floats:
        """(h·w, 2) cell centres (x, y), row-major, in pixels of the image at `size` (height, width)."""
        return scale_points(pixel_centres(self.grid).reshape(-1, 2), self.grid, size)

    def points_at(self, pixels: Floats, size: Size) -> Floats:
        """Points (n, 3), metres, camera 1, at pixels (n, 2) of the image at `size`: bilinear between
        cell centres, the border's beyond them; NaN outside the image or beside a cell without a point."""
        return sample_map(self.points, scale_points(pixels, size, self.grid))

    def depth_at(self, pixels: Floats, size: Size, T_view_1: Floats) -> Floats:
        """Metres (n,) along z of a camera at T_view_1 (4, 4), at pixels (n, 2) of the image at `size`;
        NaN without a point, or with one behind that camera.  View 1's own camera is at the identity."""
        depth = transform(T_view_1, self.points_at(pixels, size))[:, 2]
        return np.where(depth > 0, depth, np.nan)

    def every(self, stride: int) -> NDArray[np.int64]:
        """Row-major indices of the cells on an even grid, `stride` apart, along both axes; with 1 all
        of them.  A map smaller than a stride still has one."""
        rows, columns = (np.arange(min(stride // 2, n // 2), n, stride) for n in self.grid)
        return np.asarray((rows[:, None] * self.grid[1] + columns).ravel(), np.int64)


@dataclass(frozen=True)
class PairMaps:
    """Both views of a pair; the points of both are in the frame of view 1's camera."""

    view1: ViewMaps
    view2: ViewMaps

    @property
    def finite(self) -> bool:
        return self.view1.finite and self.view2.finite


def on_rays(view: ViewMaps, camera: Camera) -> ViewMaps:
    """Maps of a view in its own camera, with its points moved along z's plane onto the known camera's rays:
    the decoder's depth, the camera's field of view.  A depth that is not positive is no point (NaN)."""
    centres = view.centres(camera.size)
    points = unproject(camera.K, centres, view.points[..., 2].ravel().astype(np.float64))
    return replace(view, points=points.reshape(view.points.shape).astype(np.float32))


def pair_maps(first: ViewOutput, second: ViewOutput) -> list[PairMaps]:
    """The pairs of a batch, one by one, from what a network gave for view 1 and view 2 of each."""
    views = [_views(output) for output in (first, second)]
    return [PairMaps(view1, view2) for view1, view2 in zip(*views, strict=True)]


def _views(output: ViewOutput) -> list[ViewMaps]:
    tensors = (output.points, output.confidence, output.descriptors, output.descriptor_confidence)
    maps = [tensor.detach().float().cpu().numpy() for tensor in tensors]
    return [ViewMaps(*of_view) for of_view in zip(*maps, strict=True)]
