"""Encoders and decoders of CelebA and Cityscapes: sizes, arithmetic, statistics, weights."""

import json
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate

from experiments.data.files import DataError
from experiments.models import dilated, pyramid, resnet
from experiments.models.conv2d import BatchNorm, conv2d_lax, conv2d_matmul, max_pool
from experiments.models.pretrained import load_pretrained, read_safetensors, torch_name
from experiments.models.stateful import split_stateful

EPS = np.finfo(np.float32).eps


def count(tree) -> int:
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_resnet_18_has_the_papers_parameters():
    size = resnet.ResNetSize()
    shapes = resnet.resnet(size).eval_shape()
    assert count(shapes.params) == 11_168_832
    assert size.features(64) == 2048
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    apply = resnet.resnet(size).apply
    z, _ = jax.eval_shape(lambda v, x: apply(v, x, train=False), shapes, images)
    assert z.shape == (2, 2048)


def test_dilated_resnet_50_keeps_an_eighth_of_the_resolution():
    module = dilated.dilated_resnet(dilated.DilatedSize())
    shapes = module.eval_shape()
    # torchvision's resnet50 has 25 557 032, of which the classifier 2048 · 1000 + 1000.
    assert count(shapes.params) == 25_557_032 - 2_049_000
    images = jax.ShapeDtypeStruct((1, 256, 512, 3), jnp.float32)
    z, _ = jax.eval_shape(lambda v, x: module.apply(v, x, train=True), shapes, images)
    assert z.shape == (1, 32, 64, 2048)


def test_dilations_and_strides_are_those_of_a_stride_8_resnet():
    model = nnx.eval_shape(lambda: dilated.DilatedResNet(dilated.DilatedSize()))
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    assert [[b.conv2.stride for b in s][:2] for s in stages] == [[1, 1], [2, 1], [1, 1], [1, 1]]
    assert [[b.conv2.dilation for b in s][:3] for s in stages] == [
        [1, 1, 1],
        [1, 1, 1],
        [1, 2, 2],
        [2, 4, 4],
    ]


@pytest.mark.parametrize("form", [conv2d_lax, conv2d_matmul])
@pytest.mark.parametrize(
    "shape", [(6, 9, 3, 1, 1), (7, 8, 3, 2, 1), (8, 5, 3, 1, 2), (6, 6, 1, 2, 1), (9, 10, 7, 2, 1)]
)
def test_convolution_is_the_padded_correlation(form, shape):
    height, width, side, stride, dilation = shape
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, height, width, 3))
    kernel = rng.normal(size=(side, side, 3, 4))
    got = form(*(jnp.asarray(a, jnp.float32) for a in (images, kernel)), stride, dilation)
    spread = np.zeros((dilation * (side - 1) + 1,) * 2 + (3, 4))
    spread[::dilation, ::dilation] = kernel
    pad = dilation * (side - 1) // 2
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    scale = np.abs(images).max() * np.abs(kernel).sum((0, 1, 2)).max()
    for n in range(2):
        for f in range(4):
            want = correlate(padded[n], spread[..., f], "valid")[::stride, ::stride, 0]
            np.testing.assert_allclose(got[n, ..., f], want, rtol=0, atol=4 * EPS * scale)


@pytest.mark.parametrize("sides", [(6, 8), (7, 5)])
def test_max_pool_is_the_maximum_over_windows(sides):
    images = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
    got = max_pool(jnp.asarray(images))
    assert got.shape == (2, -(-sides[0] // 2), -(-sides[1] // 2), 3)
    for i in range(got.shape[1]):
        for j in range(got.shape[2]):
            window = images[:, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2]
            np.testing.assert_array_equal(got[:, i, j], window.max((1, 2)))


def test_weights_are_drawn_as_he_et_al_do():
    module = resnet.resnet(resnet.ResNetSize(widths=(16, 32), blocks=(1, 1), pool=2))
    params = module.init(jax.random.key(0)).params
    block = params["blocks"][1]
    for kernel, features in ((block["conv1"], 9 * 32), (block["downsample"][0], 32)):
        kernel = np.asarray(kernel["kernel"][...])
        error = np.std(kernel) / np.sqrt(2 / features) - 1
        assert abs(error) < 5 / np.sqrt(2 * kernel.size)  # five standard errors
    first, second = (np.ravel(block[name]["kernel"][...])[:4608] for name in ("conv1", "conv2"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(4608)
    assert np.all(np.asarray(block["bn1"]["scale"][...]) == 1)


def test_batch_norm_normalises_in_training_and_remembers_for_evaluation():
    class Norm(nnx.Module):
        def __init__(self):
            self.norm = BatchNorm(3)

        def __call__(self, x, *, train):
            return self.norm(x, train)

    module = split_stateful(Norm)
    variables = module.init(jax.random.key(0))
    x = np.random.default_rng(0).normal(2, 3, size=(5, 4, 3)).astype(np.float32)
    flat = x.reshape(-1, 3).astype(np.float64)
    out, stats = module.apply(variables, jnp.asarray(x), train=True)
    want = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(out, want, atol=32 * EPS)
    mean, var = (stats["norm"][name][...] for name in ("mean", "var"))
    np.testing.assert_allclose(mean, 0.1 * flat.mean(0), rtol=16 * EPS)
    np.testing.assert_allclose(var, 0.9 + 0.1 * flat.var(0, ddof=1), rtol=16 * EPS)
    out, same = module.apply(variables._replace(stats=stats), jnp.asarray(x), train=False)
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-5, atol=32 * EPS)
    assert all(map(np.array_equal, jax.tree.leaves(same), jax.tree.leaves(stats)))


def test_statistics_have_no_gradient_in_training():
    module = resnet.resnet(resnet.ResNetSize(widths=(4, 8), blocks=(1, 1), pool=2))
    variables = module.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))
    grads = jax.jit(jax.grad(lambda v: jnp.sum(module.apply(v, images, train=True)[0] ** 2)))(
        variables
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads.stats))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads.params))


def test_pooling_and_interpolation_of_the_pyramid():
    # Bins as torch's adaptive pooling has them: they overlap where the size does not divide.
    matrix = pyramid.pooling_matrix(8, 6)
    assert [np.flatnonzero(row).tolist() for row in matrix] == [
        [0, 1], [1, 2], [2, 3], [4, 5], [5, 6], [6, 7],
    ]  # fmt: skip
    np.testing.assert_allclose(matrix.sum(1), 1)
    up = pyramid.interpolation_matrix(3, 12)
    line = up @ np.array([1.0, 2.0, 3.0])
    centres = np.clip((np.arange(12) + 0.5) / 4 - 0.5, 0, 2)
    np.testing.assert_allclose(line, 1 + centres)
    np.testing.assert_allclose(pyramid.interpolation_matrix(1, 5), 1)


def test_decoder_predicts_at_the_representations_resolution():
    module = pyramid.pyramid_decoder(2048, 19)
    z = jax.ShapeDtypeStruct((8, 32, 64, 2048), jnp.float32)
    out, _ = jax.eval_shape(
        lambda v, x: module.apply(v, x, jax.random.key(0), train=True), module.eval_shape(), z
    )
    assert out.shape == (8, 32, 64, 19)


# Weights from a file.

TINY = dilated.DilatedSize(width=2, blocks=(1, 1, 1, 2), expansion=2)


def torch_tensors(variables, seed: int = 0) -> dict[str, np.ndarray]:
    """Generated tensors with torchvision's names and layout."""
    rng, tensors = np.random.default_rng(seed), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        shape = tuple(leaf.shape[i] for i in (3, 2, 0, 1)) if leaf.ndim == 4 else leaf.shape
        tensors[torch_name(path)] = rng.uniform(0.5, 1.5, size=shape).astype(np.float32)
    return {**tensors, "fc.weight": np.ones((10, 32), np.float32)}


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = tensor.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture(scope="module")
def tiny():
    return dilated.dilated_resnet(TINY).eval_shape()


def test_names_are_torchvisions(tiny):
    names = set(torch_tensors(tiny))
    assert {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "layer1.0.conv3.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_var",
        "layer4.1.bn2.bias",
    } <= names
    assert "layer4.1.downsample.0.weight" not in names


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_weights_arrive_transposed(tiny, tmp_path: Path, suffix: str):
    tensors, path = torch_tensors(tiny), tmp_path / f"resnet{suffix}"
    if suffix == ".npz":
        np.savez(path, **tensors)
    else:
        write_safetensors(path, tensors)
    loaded = load_pretrained(tiny, path)
    assert jax.tree.structure(loaded) == jax.tree.structure(tiny)
    kernel = loaded.params["layer1"][0]["conv2"]["kernel"][...]
    np.testing.assert_array_equal(kernel[1, 2, 0, 1], tensors["layer1.0.conv2.weight"][1, 0, 1, 2])
    var = loaded.stats["layer4"][1]["bn3"]["var"][...]
    np.testing.assert_array_equal(var, tensors["layer4.1.bn3.running_var"])


def test_half_precision_weights_are_widened(tmp_path: Path):
    values = np.array([0.5, -1.25, 3.0], np.float32)
    write_safetensors(tmp_path / "half.safetensors", {"a": values}, "F16")
    np.testing.assert_array_equal(read_safetensors(tmp_path / "half.safetensors")["a"], values)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()  # exact in bfloat16
    header = {"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    text = json.dumps(header).encode()
    (tmp_path / "brain.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw)
    got = read_safetensors(tmp_path / "brain.safetensors")["a"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, values)


def test_what_is_wrong_with_a_file_is_one_line_that_names_it(tiny, tmp_path: Path):
    tensors, path = torch_tensors(tiny), tmp_path / "w.safetensors"
    name = "layer2.0.conv2.weight"

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message) as info:
            load_pretrained(tiny, path)
        assert str(path) in str(info.value) and "\n" not in str(info.value)

    refused("no such file")
    write_safetensors(path, {k: v for k, v in tensors.items() if k != name})
    refused(f"no tensor '{name}'")
    write_safetensors(path, {**tensors, name: np.ones((4, 4, 1, 1))})
    refused(rf"'{name}': expected shape \(4, 4, 3, 3\), got \(4, 4, 1, 1\)")
    write_safetensors(path, {**tensors, name: np.full((4, 4, 3, 3), np.nan)})
    refused(f"'{name}': holds numbers that are not finite")
    write_safetensors(path, tensors)
    whole = path.read_bytes()
    for broken, message in (
        (whole[:-1], "cut short"),
        (whole[:100], "cut short inside its header"),
        (whole[:3], "not a safetensors file"),
        ((2).to_bytes(8, "little") + b"{x", "header is no JSON"),
        ((2).to_bytes(8, "little") + b"[]", "no JSON object"),
    ):
        path.write_bytes(broken)
        refused(message)
    path = tmp_path / "w.npz"
    path.write_bytes(b"no zip")
    refused("not a readable .npz file")
    path = tmp_path / "w.pth"
    path.touch()
    refused("expected a .safetensors or .npz file")
