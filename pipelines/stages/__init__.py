"""The stages of a run: a file for each, and their list.

docs/architecture.md, "Add a stage to the scripts", has an example, step by step.
"""

from pipelines.stages import (
    cluster,
    distill,
    prune,
    prune_channels,
    quantize,
    quantize_aware,
    sparse_train,
    tune,
)

STAGES = {
    stage.name: stage
    for stage in (
        tune.STAGE,
        distill.STAGE,
        sparse_train.STAGE,
        prune_channels.STAGE,
        prune.STAGE,
        cluster.STAGE,
        quantize_aware.STAGE,
        quantize.STAGE,
    )
}
