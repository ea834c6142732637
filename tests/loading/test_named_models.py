"""Models by name: keras.applications, and folders of KerasHub."""

import keras
import numpy as np
import pytest

from tfpeft.core.arguments import InputError
from tfpeft.loading.model_loading import load_model


def test_an_application_without_its_weights():
    loaded = load_model("applications:MobileNet:untrained")
    assert loaded.output_shape == (None, 1000)


@pytest.mark.parametrize(
    "name", ["applications:MobileNet9", "applications:", "applications:imagenet_utils"]
)
def test_an_application_that_is_not_there(name):
    with pytest.raises(
        InputError, match="`path`, expected applications:Name or .*such as .*, .*Rec"
    ):
        load_model(name)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def offline(weights):
        raise OSError("no network")

    offline.__name__ = "MobileNet"
    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(InputError, match="no network; :untrained needs none"):
        load_model("applications:MobileNet")


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A folder of a preset of KerasHub, and the backbone that was saved."""
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    options = {"vocabulary_size": 20, "num_layers": 1, "num_heads": 2, "hidden_dim": 4}
    backbone = hub.models.BertBackbone(**options, intermediate_dim=4, max_sequence_length=5)
    folder = tmp_path_factory.mktemp("preset")
    backbone.save_to_preset(str(folder))
    return folder, backbone


def test_a_folder_of_keras_hub(preset):
    folder, backbone = preset
    loaded = load_model(folder)
    batch = {
        name: np.ones((2, 5), "int32") for name in ("token_ids", "padding_mask", "segment_ids")
    }
    for name, output in backbone(batch).items():
        np.testing.assert_array_equal(loaded(batch)[name], output)


def test_a_preset_that_cannot_be_loaded(preset, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="`path`.*which KerasHub cannot load: ") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no_such_preset', which is not there"):
        load_model("no_such_preset")
