"""Trains a model whose kernels have few distinct values each (weight clustering).

    python -m pipelines.cluster --model=model.keras --number_of_clusters=16 --learning_rate=1e-4
    python -m pipelines.cluster --model=prune.keras --number_of_clusters=8   # zeros stay zeros
    python -m pipelines.cluster --model=model.keras --clusters_per_channel --exclude=head

Without --model one is trained first. Writes cluster.keras (values verified), its float32
model.tflite and the report to saved_models/NAME-cluster/. Few values make the file smaller once it
is compressed: see gzip. pipelines.quantize keeps them in an int8 file.
"""

from pipelines.common.script import Script
from pipelines.stages import compression


def main(settings):
    return compression.run("cluster", settings, ["cluster"])


SCRIPT = Script(
    main,
    __doc__,
    groups=compression.groups("cluster"),
    first=(
        "dataset",
        "model",
        "number_of_clusters",
        "clusters_per_channel",
        "cluster_initialization",
        "exclude",
        "epochs",
        "learning_rate",
        "max_accuracy_drop",
    ),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
