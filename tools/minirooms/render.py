"""Pictures: path tracing at a few samples, denoising, and a photographer's exposure."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.minirooms.backend import denoiser, mitsuba
from tools.minirooms.cameras import Camera

F32 = NDArray[np.float32]
_MAX_DEPTH, _ROULETTE_FROM = 5, 3
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_MIDDLE = 0.17
"""Linear value that the room's typical luminance is brought to before the per-view gain."""
_OVEREXPOSED, _UNDEREXPOSED = 0.10, 0.11


def radiance(scene: Any, camera: Camera, size: int, samples: int, seed: int) -> F32:
    """Denoised linear radiance (size, size, 3)."""
    mi = mitsuba()
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # mitsuba's camera: x left, y up, z forward
    sensor = mi.load_dict(
        {
            "type": "perspective",
            "fov": camera.fov_deg,
            "fov_axis": "x",
            "near_clip": 0.01,
            "to_world": mi.ScalarTransform4f(np.linalg.inv(camera.T_cam_world) @ flip),
            "film": {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}},
            "sampler": {"type": "independent"},
        }
    )
    integrator = mi.load_dict(
        {
            "type": "aov",
            "aovs": "albedo:albedo,normal:sh_normal",
            "inner": {"type": "path", "max_depth": _MAX_DEPTH, "rr_depth": _ROULETTE_FROM},
        }
    )
    raw = np.array(mi.render(scene, sensor=sensor, integrator=integrator, spp=samples, seed=seed), np.float32)
    colour, albedo, normal = (
        np.ascontiguousarray(raw[..., k : k + 3]) for k in (0, raw.shape[2] - 6, raw.shape[2] - 3)
    )
    # A few samples hit a lamp through a chain of chance; a firefly would become a denoised blob.
    colour = np.minimum(colour, 60.0)
    clean = denoiser().denoise(colour, np.clip(albedo, 0, 1), np.clip(normal, -1, 1), hdr=True)
    return np.asarray(clean, np.float32)


def base_exposure(images: list[F32]) -> float:
    """The gain that brings the room's typical luminance (log mean over all views, lamps and panes
    left out) to middle grey."""
    luminance = np.concatenate([(image @ _LUMINANCE).ravel() for image in images])
    typical = luminance[luminance < np.quantile(luminance, 0.95)]
    return float(_MIDDLE / np.exp(np.mean(np.log(typical + 1e-4))))


def tonemap(linear: F32) -> F32:
    """Linear to display-linear [0, 1]: straight below 0.5, then a shoulder that reaches 1 slowly."""
    knee = 0.5
    over = np.maximum(linear - knee, 0)
    shoulder = knee + (1 - knee) * (1 - np.exp(-over / (1 - knee)))
    return np.where(linear < knee, np.maximum(linear, 0), shoulder).astype(np.float32)


def develop(image: F32, base: float, exposure: tuple[float, float, float]) -> NDArray[np.uint8]:
    """sRGB uint8 (H, W, 3) from linear radiance with exposure (gain, red, blue)."""
    gain, red, blue = exposure
    linear = tonemap(image * (base * gain) * np.array([red, 1.0, blue], np.float32)).astype(np.float64)
    srgb = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )
    return (np.clip(srgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def keep_exposure(
    image: F32, base: float, exposure: tuple[float, float, float]
) -> tuple[float, float, float]:
    """The exposure moved towards none until the picture is neither dark nor burnt out."""
    gain, red, blue = exposure
    for _ in range(6):
        grey = develop(image, base, (gain, red, blue)).mean(axis=2) / 255
        burnt, mean = float((grey > 0.97).mean()), float(grey.mean())
        if burnt > _OVEREXPOSED and gain > 0.65:
            gain *= 0.85
        elif mean < 2.5 * _UNDEREXPOSED and gain < 1.6:
            gain *= 1.12
        else:
            break
    return gain, red, blue


def jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes, 4:2:0 as cameras write it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
