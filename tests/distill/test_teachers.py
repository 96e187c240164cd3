"""Teachers: which tokens they teach, at which grid, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dune_bench.distill.teachers import Teacher, TeacherSpec, load_teacher, load_teachers, make_teacher
from dune_bench.encoders.base import Encoder
from dune_bench.encoders.base import Tokens as Maps
from dune_bench.encoders.dune import FILE_TEACHERS
from dune_bench.encoders.mast3r import Mast3rEncoder
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.models.two_view_files import ENCODER_NAMES
from dune_bench.registry.cards import EncoderCard, load_card, parse_card
from dune_bench.registry.lookup import Registry, cards_root, load_registry
from tests.encoders.released import GOLDEN, golden_image, rule_tensor
from tests.models.released_two_view import listed

CARDS = {
    "dinov2_tiny": ("multihmr", {"width": 24, "depth": 2, "heads": 2, "table": 4}),
    "plain": ("multihmr", {"width": 24, "depth": 2, "heads": 2, "table": 4}),
    "mast3r_tiny": ("mast3r", {"width": 24, "depth": 2, "heads": 2, "patch": 16}),
    "colours": ("pixels", {}),
}


@pytest.fixture
def registry() -> Registry:
    found = Registry()
    for name, (kind, arch) in CARDS.items():
        found.add_encoder(EncoderCard(id=name, kind=kind, arch=arch), "test")
    return found


def load(registry: Registry, name: str, dtype: str = "float32", **spec: object) -> Teacher:
    content = {"name": name, "weights": "random"} | spec
    return load_teacher(TeacherSpec.model_validate(content), dtype=dtype, device="cpu", registry=registry)


class Pixels(Encoder):
    """The normalised pixels themselves, as tokens of all pixels of a patch."""

    id = "pixels_of_a_patch"
    adapter = "test@1"
    mean, std = (0.25, 0.5, 0.75), (0.5, 0.25, 2.0)
    depth, teachers = 1, ()

    def __init__(self, patch: int, has_cls: bool = False) -> None:
        self.patch_size, self.dim, self.has_cls = patch, 3 * patch**2, has_cls

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Maps]:
        patch = nn.functional.pixel_unshuffle(normalised, self.patch_size)
        cls = patch.mean((2, 3)) if self.has_cls else None
        return dict.fromkeys(views, (patch, cls))


def images(count: int, height: int, width: int) -> Tensor:
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(1))


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.75."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_axis(length: int, to: int) -> np.ndarray:
    """Matrix (to, length): the first and the last entry keep their place, those beyond the ends repeat."""
    matrix = np.zeros((to, length))
    for i in range(to):
        place = i * (length - 1) / (to - 1)
        for j in range(int(place) - 1, int(place) + 3):
            matrix[i, min(max(j, 0), length - 1)] += cubic(place - j)
    return matrix


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    patches=st.tuples(st.integers(2, 7), st.integers(2, 7)),
)
def test_teacher_does_not_see_another_image_than_the_resize_rule_says(
    grid: tuple[int, int], patches: tuple[int, int]
) -> None:
    student, own = patches
    x = images(2, grid[0] * student, grid[1] * student)
    tokens = make_teacher("t", Pixels(own)).tokens(x, student).patch
    mean, std = (np.array(values)[:, None, None] for values in (Pixels.mean, Pixels.std))
    normalised = (x.double().numpy() - mean) / std
    if student != own:
        rows, columns = (resize_axis(n * student, n * own) for n in grid)
        normalised = np.einsum("ih,bchw,jw->bcij", rows, normalised, columns)
    # Tokens in row-major order; channels c·p² + dy·p + dx.
    cut = normalised.reshape(2, 3, grid[0], own, grid[1], own).transpose(0, 2, 4, 1, 3, 5)
    expected = cut.reshape(2, grid[0] * grid[1], -1)
    np.testing.assert_allclose(tokens.numpy(), expected, atol=2e-5)


def test_sizes_of_the_paper_meet_the_students_grid(registry: Registry) -> None:
    teacher = load(registry, "mast3r_tiny")
    assert isinstance(teacher.encoder, Mast3rEncoder)
    for size, resized in ((336, 384), (448, 512)):
        x = images(1, size, size)
        tokens = teacher.tokens(x, 14)
        assert tokens.patch.shape == (1, (size // 14) ** 2, 24)
        # MASt3R's own normalisation, before the resize.
        seen = nn.functional.interpolate(2 * x - 1, scale_factor=16 / 14, mode="bicubic", align_corners=True)
        assert seen.shape[-2:] == (resized, resized)
        with torch.no_grad():
            expected = teacher.encoder.network.enc_norm(teacher.encoder.network(seen, [2])[2])
        torch.testing.assert_close(tokens.patch, expected, atol=1e-5, rtol=0)


def test_equal_patch_sizes_give_what_encode_gives(registry: Registry) -> None:
    teacher = load(registry, "dinov2_tiny")
    x = images(2, 70, 42)
    tokens, features = teacher.tokens(x, 14), teacher.encoder.encode(x, ["norm"])["norm"]
    assert torch.equal(tokens.patch, features.patch.flatten(2).transpose(1, 2))
    assert torch.equal(tokens.cls, features.cls)  # type: ignore[arg-type]


def test_tokens_may_stand_in_a_students_graph(registry: Registry) -> None:
    """Tensors made in inference mode may not."""
    teacher = load(registry, "dinov2_tiny")
    for patch in (14, 7):
        tokens = teacher.tokens(images(1, 28, 28), patch)
        scale = torch.ones(24, requires_grad=True)
        (gradient,) = torch.autograd.grad((scale * tokens.patch).sum(), scale)
        assert not tokens.patch.requires_grad
        torch.testing.assert_close(gradient, tokens.patch.sum((0, 1)))


def test_kinds_of_tokens_are_those_of_the_paper(registry: Registry) -> None:
    assert load(registry, "dinov2_tiny").has_cls
    assert not load(registry, "plain").has_cls
    x = images(1, 28, 28)
    assert load(registry, "plain").tokens(x, 14).cls is None
    assert load(registry, "plain", cls=True).tokens(x, 14).cls is not None
    assert load(registry, "dinov2_tiny", cls=False).tokens(x, 14).cls is None
    # By the encoder, whatever the teacher is called.
    assert load(registry, "generic", encoder="dinov2_tiny").has_cls
    assert not load(registry, "dinov2_like", encoder="plain").has_cls


def test_views_have_their_own_width(registry: Registry) -> None:
    wide = load(registry, "dinov2_tiny", view="layers:1,2")
    assert (wide.view, wide.width, wide.tokens(images(1, 28, 28), 14).patch.shape[2]) == (
        "layers:1,2",
        48,
        48,
    )
    assert load(registry, "dinov2_tiny").view == "norm"
    assert load(registry, "dinov2_tiny").identity() != load(registry, "dinov2_tiny", view="raw").identity()


def test_bfloat16_is_near_and_comes_back_as_float32(registry: Registry) -> None:
    full, half = load(registry, "dinov2_tiny"), load(registry, "dinov2_tiny", dtype="bf16")
    a, b = (teacher.tokens(images(1, 28, 28), 14).patch for teacher in (full, half))
    assert b.dtype is torch.float32
    assert not torch.equal(a, b)
    assert float((a - b).abs().max()) < 0.1
    assert full.identity() != half.identity()


def test_the_papers_teachers_are_registered_with_their_groups() -> None:
    registry = load_registry()
    for name, home in zip(FILE_TEACHERS.values(), ("dinov2", "mast3r", "multihmr"), strict=True):
        spec = TeacherSpec(name=name)
        assert spec.source in registry.encoders
        assert spec.home_group == home
    assert TeacherSpec(name="other").home_group is None
    assert TeacherSpec(name="mast3r_vitl16", home="mine").home_group == "mine"


def test_class_token_that_is_not_there_cannot_be_taught(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"teacher mast3r_tiny: view 'norm' .* no class token .*cls: false"):
        load(registry, "mast3r_tiny", cls=True)
    with pytest.raises(UsageError, match="no class token"):
        make_teacher("t", Pixels(4), cls=True)
    assert make_teacher("t", Pixels(4, has_cls=True), cls=True).has_cls


@pytest.mark.parametrize("patch", [None, 0, -14, 14.0, True])
def test_unknown_patch_size_is_refused(patch: object) -> None:
    encoder = Pixels(4)
    encoder.patch_size = patch  # type: ignore[assignment]
    with pytest.raises(UsageError, match="teacher t: the patch size of encoder pixels_of_a_patch"):
        make_teacher("t", encoder)
    del encoder.patch_size
    with pytest.raises(UsageError, match="is not known"):
        make_teacher("t", encoder)


@pytest.mark.parametrize(("size", "patch"), [((30, 28), 14), ((28, 30), 14), ((28, 28), 0)])
def test_images_that_are_no_whole_tokens_are_refused(size: tuple[int, int], patch: int) -> None:
    with pytest.raises(UsageError, match=rf"{size[0]}×{size[1]} pixels are not whole tokens of {patch}"):
        make_teacher("t", Pixels(4)).tokens(images(1, *size), patch)


def test_normalised_images_and_broken_features_do_not_pass(registry: Registry) -> None:
    teacher = load(registry, "dinov2_tiny")
    with pytest.raises(UsageError, match="do not normalise them"):
        teacher.tokens(2 * images(1, 28, 28), 14)
    assert teacher.encoder.module is not None
    with torch.no_grad():
        next(teacher.encoder.module.parameters()).fill_(float("nan"))
    with pytest.raises(TaskError, match="encoder dinov2_tiny, view 'norm': non-finite"):
        teacher.tokens(images(1, 28, 28), 14)


def test_unknown_names_are_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"unknown encoder 'mast3r_tny' \(did you mean mast3r_tiny"):
        load(registry, "mast3r_tny")
    with pytest.raises(UsageError, match="has no view 'layer:9'"):
        load(registry, "plain", view="layer:9")
    with pytest.raises(UsageError, match=r"unknown key 'veiw' \(did you mean view"):
        parse_card({"name": "plain", "veiw": "raw"}, TeacherSpec, "recipe.yaml")
    with pytest.raises(UsageError, match="name"):
        parse_card({"name": "timm:vit.x"}, TeacherSpec, "recipe.yaml")


def test_teachers_that_are_none_or_twice_are_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match="no teachers"):
        load_teachers([], registry=registry)
    spec = TeacherSpec(name="colours")
    with pytest.raises(UsageError, match="teacher 'colours' stands twice"):
        load_teachers([spec, spec], registry=registry)
    both = [spec, TeacherSpec(name="plain", weights="random")]
    assert [teacher.name for teacher in load_teachers(both, registry=registry)] == ["colours", "plain"]


def test_weights_that_are_not_here_are_exit_3(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="names no weights"):
        load_teacher(TeacherSpec(name="plain"), registry=registry, cache=tmp_path)
    with pytest.raises(UnavailableError, match="no such file"):
        load(registry, "plain", weights=str(tmp_path / "gone.pth"))
    with pytest.raises(UnavailableError, match=r"multihmr_vits14_672 are not .*: multiHMR_672_S\.pt"):
        load_teacher(TeacherSpec(name="multihmr_vits14_672"), cache=tmp_path, offline=True)


@pytest.mark.slow
def test_mast3r_as_teacher_does_not_drift_from_the_original_program() -> None:
    names = {name: shape for name, shape in listed("mast3r").items() if name.startswith(ENCODER_NAMES)}
    state = {name: rule_tensor(name, shape) for name, shape in names.items()}
    card = load_card(cards_root() / "encoders" / "mast3r_vitl16.yaml", EncoderCard)
    teacher = make_teacher("mast3r_vitl16", Mast3rEncoder.from_card(card, state))
    del state
    with np.load(GOLDEN / "mast3r_vitlarge.npz") as archive:
        golden = dict(archive)
    for i, size in enumerate([(160, 224), (224, 160), (176, 240)]):
        key = f"{size[0]}x{size[1]}/encoder"
        tokens = teacher.tokens(golden_image(2000 + 2 * i, size), 16).patch[0].numpy()
        assert np.abs(tokens[golden[f"{key}/tokens"], :16] - golden[f"{key}/values"]).max() <= 1e-4
        assert np.abs(tokens[:, :64].mean(0) - golden[f"{key}/mean"]).max() <= 1e-4


def test_missing_weights_of_a_teacher_are_not_blamed_on_an_option(registry: Registry) -> None:
    with pytest.raises(UnavailableError, match=r"^teacher plain: weights nowhere\.pth: no such file$"):
        load(registry, "plain", weights="nowhere.pth")
