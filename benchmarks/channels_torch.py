"""Torch-Pruning on MLPerf Tiny's ResNet8: writes what it keeps, for channels_quality.py.

    pip install torch torch-pruning h5py absl-py        # an environment of its own
    python benchmarks/channels_torch.py --mlperf_dir=mlperf_tiny --torch_dir=torch_pruned

The trained weights of Keras are carried into PyTorch and pruned there. Each .npz has the weights
that are left, in the layout and with the names of Keras, eight images and what the model of PyTorch
outputs for them, so that it can be seen that the copy in Keras is the same.

- equal_0.5.npz and such: the importance that tfpeft calls "l2", a fraction of each layer.
- layer_0.5.npz, global_0.5.npz: `GroupMagnitudeImportance()` as it comes, the least fraction of
  each layer, or of all channels, that leaves at most half of the MACs.
"""

import copy
import pathlib

import h5py
import numpy as np
import torch
import torch_pruning
from absl import app, flags
from torch import nn
from torch.nn import functional

FLAGS = flags.FLAGS
flags.DEFINE_string("mlperf_dir", "mlperf_tiny", "Folder of MLPerf Tiny's trained models.")
flags.DEFINE_string("torch_dir", "torch_pruned", "Folder for what is pruned.")
flags.DEFINE_list("shares", ["0.5", "0.25"], "Fractions of the MACs that are left.")
flags.DEFINE_list("ratios", ["0.25", "0.5", "0.75"], "Fractions of the channels of each layer.")

_CONVOLUTIONS = {  # number in Keras: (inputs, outputs, side of the kernel, stride)
    0: (3, 16, 3, 1),
    1: (16, 16, 3, 1),
    2: (16, 16, 3, 1),
    3: (16, 32, 3, 2),
    4: (32, 32, 3, 1),
    5: (16, 32, 1, 2),
    6: (32, 64, 3, 2),
    7: (64, 64, 3, 1),
    8: (32, 64, 1, 2),
}
_BLOCKS = [((1, 2), None, (1, 2)), ((3, 4), 5, (3, 4)), ((6, 7), 8, (5, 6))]


class ResNet8(nn.Module):
    """The network of MLPerf Tiny, on (batch, 3, 32, 32)."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, side, stride, padding=side // 2 if stride == 1 else 0)
            for inputs, outputs, side, stride in _CONVOLUTIONS.values()
        )
        widths = [16, 16, 16, 32, 32, 64, 64]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=1e-3) for width in widths)
        self.dense = nn.Linear(64, 10)

    def _convolution(self, x, number):
        layer = self.convolutions[number]
        if layer.stride[0] == 2 and layer.kernel_size[0] == 3:  # what TensorFlow calls "same"
            x = functional.pad(x, (0, 1, 0, 1))
        return layer(x)

    def forward(self, x):
        x = torch.relu(self.norms[0](self._convolution(x, 0)))
        for (first, second), shortcut, norms in _BLOCKS:
            y = torch.relu(self.norms[norms[0]](self._convolution(x, first)))
            y = self.norms[norms[1]](self._convolution(y, second))
            x = torch.relu(y + (x if shortcut is None else self._convolution(x, shortcut)))
        x = functional.avg_pool2d(x, 8).flatten(1)
        return torch.softmax(self.dense(x), dim=1)


def _named(model):
    """Yields (name in Keras, parameter or buffer, axes of PyTorch in the order of Keras)."""

    def name(kind, number):
        return kind if number == 0 else f"{kind}_{number}"

    for number, layer in enumerate(model.convolutions):
        yield f"{name('conv2d', number)}/kernel", layer.weight, (2, 3, 1, 0)
        yield f"{name('conv2d', number)}/bias", layer.bias, (0,)
    for number, layer in enumerate(model.norms):
        path = name("batch_normalization", number)
        yield f"{path}/gamma", layer.weight, (0,)
        yield f"{path}/beta", layer.bias, (0,)
        yield f"{path}/moving_mean", layer.running_mean, (0,)
        yield f"{path}/moving_variance", layer.running_var, (0,)
    yield "dense/kernel", model.dense.weight, (1, 0)
    yield "dense/bias", model.dense.bias, (0,)


def trained(path):
    """Returns the model with the weights of a .h5 file of Keras."""
    model = ResNet8().eval()
    with h5py.File(path) as file, torch.no_grad():
        for name, tensor, axes in _named(model):
            layer, weight = name.split("/")
            value = file["model_weights"][layer][layer][f"{weight}:0"][:]
            tensor.copy_(torch.from_numpy(value.transpose(np.argsort(axes)).copy()))
    return model


def macs(model):
    """Returns the multiply-accumulates of the convolutions and the Dense for one image."""
    counts = []

    def count(layer, inputs, output):
        counts.append(layer.weight.numel() * output[0, 0].numel())

    layers = [*model.convolutions, model.dense]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def pruned(model, ratio, importance, is_global):
    model = copy.deepcopy(model)
    torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, 3, 32, 32),
        importance=importance,
        global_pruning=is_global,
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        ignored_layers=[model.dense],
    ).step()
    return model


def write(path, model, **figures):
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    with torch.no_grad():
        outputs = model(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    arrays = {name: tensor.detach().numpy().transpose(axes) for name, tensor, axes in _named(model)}
    np.savez(path, images=images, outputs=outputs, **arrays)
    widths = [layer.out_channels for layer in model.convolutions]
    print(path.name, widths, *(f"{name}={value}" for name, value in figures.items()), flush=True)


def main(_):
    folder = pathlib.Path(FLAGS.torch_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model = trained(pathlib.Path(FLAGS.mlperf_dir) / "pretrainedResnet.h5")
    own = macs(model)
    print(f"torch {torch.__version__}, torch-pruning {torch_pruning.__version__}, {own:,} MACs")
    kernels = [nn.modules.conv._ConvNd, nn.Linear]
    for ratio in map(float, FLAGS.ratios):
        importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, target_types=kernels)
        small = pruned(model, ratio, importance, is_global=False)
        write(folder / f"equal_{ratio}.npz", small, macs=macs(small) / own)
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    for scope in ("layer", "global"):
        for share in map(float, FLAGS.shares):
            for ratio in np.arange(0.01, 0.9, 0.01):
                small = pruned(model, float(ratio), importance, is_global=scope == "global")
                if macs(small) <= share * own:
                    break
            write(folder / f"{scope}_{share}.npz", small, ratio=ratio, macs=macs(small) / own)


if __name__ == "__main__":
    app.run(main)
