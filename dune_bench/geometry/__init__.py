"""Geometry of cameras, poses, points and matches: pure, batched functions on arrays.

Conventions (the README's): OpenCV axes, x right, y down, z forward; `K` in pixels with pixel centres
at half-integers, so an image of height H and width W spans [0, W] × [0, H]; sizes are (height, width);
points are (x, y); `T_a_b` maps points from b to a; depth is z, and ≤ 0 or non-finite means none.
A missing value is NaN here, never zero.
"""
