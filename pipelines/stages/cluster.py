"""The stage after which each kernel has few distinct values (weight clustering); zeros stay."""

import tfpeft
from pipelines.common import training
from pipelines.common.flags import Flag
from pipelines.stages import sparsify
from pipelines.stages.stage import Stage
from tfpeft.quantization.centroids import INITIALIZATIONS

FLAGS = (
    Flag(
        "number_of_clusters",
        int,
        16,
        "Distinct values that each kernel has at most, zero included.",
        at_least=2,
        at_most=2**16,
    ),
    Flag(
        "cluster_initialization",
        str,
        "linear",
        "Where clusters begin before k-means: evenly from the smallest to the largest weight, at "
        "even ranks of the weights, or drawn by their distances.",
        choices=INITIALIZATIONS,
    ),
    Flag(
        "clusters_per_channel",
        bool,
        False,
        "Whether each output channel has so many values for itself: more accurate, larger.",
    ),
    Flag(
        "cluster_begin",
        float,
        0.0,
        "When the clusters are found, as a fraction of the stage.",
        at_least=0,
        below=1,
    ),
    Flag(
        "cluster_straight_through",
        bool,
        True,
        "Whether weights change clusters while they train; without, only the values of clusters "
        "are trained: in less time, and less accurate.",
    ),
    *sparsify.LAYER_FLAGS,
)


def run(settings, inputs):
    """Returns the clustered model, its values and zeros verified."""
    begin_step = int(settings.cluster_begin * training.total_steps(settings, inputs.data))

    def wrap(optimizer):
        return tfpeft.WeightClustering(
            optimizer,
            settings.number_of_clusters,
            initialization=settings.cluster_initialization,
            per_channel=settings.clusters_per_channel,
            begin_step=begin_step,
            straight_through=settings.cluster_straight_through,
            exclude=settings.exclude,
            include=settings.include,
        )

    return sparsify.fit(
        settings, inputs, wrap, first_step=begin_step, strip=tfpeft.strip_clustering
    )


STAGE = Stage("cluster", FLAGS, run)
