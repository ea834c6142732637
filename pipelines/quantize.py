r"""Trains a model with the rounding of an int8 file, and writes that file.

    python -m pipelines.quantize --model=model.keras --dataset=mine.npz --epochs=5 \
        --learning_rate=1e-4
    python -m pipelines.quantize --model=prune.keras --float_layers=head     # zeros stay zeros
    python -m pipelines.quantize --model=cluster.keras --target=tflm,ethos-u55-128 \
        --file_batch_size=1 --input_type=int8 --output_type=int8

Its model.tflite computes what the trained model computes. Try pipelines.export first: it quantizes
without training, within seconds. Without --model one is trained first. Writes quantize_aware.keras,
model.tflite and the report to saved_models/NAME-quantize/.
"""

from pipelines.common.script import Script
from pipelines.stages import compression


def main(settings):
    return compression.run("quantize", settings, ["quantize_aware", "quantize"])


SCRIPT = Script(
    main,
    __doc__,
    groups=compression.groups("quantize_aware", "quantize"),
    first=(
        "dataset",
        "model",
        "weight_bits",
        "activation_bits",
        "float_layers",
        "epochs",
        "learning_rate",
        "target",
        "max_accuracy_drop",
    ),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
