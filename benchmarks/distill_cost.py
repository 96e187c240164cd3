"""Estimated cost of the distillation recipes that need DUNE's teachers: operations, not a measurement.

Multiply-adds of linear layers and attention (two operations each), three times those of a forward pass
for what is trained, at 40 % of the bfloat16 peak of an A100 (312 · 10¹² operations a second).
"""

from __future__ import annotations

from dune_bench.distill.recipe import load_recipe, recipes
from dune_bench.encoders.vit import VitConfig

TEACHER_WIDTH, TEACHER_DEPTH = 1024, 24
"""Of the ViT-L that all three are."""
SPEED = 0.4 * 312e12


def blocks(tokens: int, width: int, depth: int) -> float:
    """Operations of transformer blocks on one image: 12 · width² weights a block, and attention."""
    return depth * (2 * 12 * width**2 * tokens + 4 * tokens**2 * width)


def per_image(arch: VitConfig, size: int, teachers: int) -> tuple[float, float]:
    """Operations of (student and projectors with their backward pass, teachers) on one image."""
    patches = (size // arch.patch) ** 2
    embed = 2 * patches * 3 * arch.patch**2 * arch.width
    encoder = embed + blocks(patches + 1 + arch.registers, arch.width, arch.depth)
    heads = blocks(patches + 1, arch.width, 1) + 2 * (patches + 1) * arch.width * TEACHER_WIDTH
    taught = blocks(patches + 1 + arch.registers, TEACHER_WIDTH, TEACHER_DEPTH)
    return 3 * (encoder + teachers * heads), teachers * taught


def main() -> None:
    print("recipe            images   steps   TFLOP/image  of it teachers  A100-hours  8 GPUs, days")
    for name in recipes():
        recipe = load_recipe(name)
        if recipe.preset != "dune-cvpr25" or recipe.student.arch is None:
            continue
        training = recipe.training.engine()
        trained, taught = per_image(recipe.student.arch, recipe.student.image_size, len(recipe.teachers))
        images = training.steps * training.batch_size
        hours = images * (trained + taught) / SPEED / 3600
        print(
            f"{name:<16} {images / 1e6:5.0f} M {training.steps:7,}   {(trained + taught) / 1e12:11.2f}"
            f"  {taught / (trained + taught):14.0%}  {hours:10.0f}  {hours / 8 / 24:12.1f}"
        )


if __name__ == "__main__":
    main()
