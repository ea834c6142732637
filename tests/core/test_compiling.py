"""What says whether a loss or a metric is the same, in another call and another process."""

import json

import keras

from pipelines.common.label_forms import FormedLoss
from tfpeft.core.compiling import described


def test_equal_losses_and_metrics_are_described_alike():
    formed = [FormedLoss(keras.losses.CategoricalCrossentropy(), 3) for _ in range(2)]
    assert described(formed[0]) == described(formed[1])
    assert "0x" not in json.dumps(described(formed[0]))  # an address, of this process alone
    assert "CategoricalCrossentropy" in json.dumps(described(formed[0]))
    metrics = [[keras.metrics.AUC(), "mae"] for _ in range(2)]
    assert metrics[0][0].name != metrics[1][0].name
    assert described(metrics[0]) == described(metrics[1])


def test_others_are_described_in_another_way():
    def custom(y_true, y_pred):
        return 0.0

    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    losses = [None, "mse", custom, smooth, keras.losses.CategoricalCrossentropy()]
    losses += [{"a": "mse"}, ["mse"], FormedLoss(smooth, 3)]
    texts = [json.dumps(described(each)) for each in losses]
    assert len(set(texts)) == len(losses)
