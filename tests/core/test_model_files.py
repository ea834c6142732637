"""Model files that are not loaded."""

import keras
import pytest

from tfpeft.core.arguments import InputError
from tfpeft.core.model_files import load_model


def test_the_code_of_a_lambda_layer_is_not_run(tmp_path):
    layers = [keras.Input((4,)), keras.layers.Lambda(lambda x: 2.0 * x)]
    keras.Sequential(layers).save(tmp_path / "m.keras")
    with pytest.raises(InputError, match="--model, .*m.keras, .*a Lambda layer, code that is not"):
        load_model(tmp_path / "m.keras", "--model")
