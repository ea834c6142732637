"""The stages of a run: a file for each, and their list.

docs/architecture.md, "Add a stage to the scripts", has an example, step by step.
"""

from pipelines.stages import distill, prune, prune_channels, quantize, sparse_train

STAGES = {
    stage.name: stage
    for stage in (
        distill.STAGE,
        sparse_train.STAGE,
        prune_channels.STAGE,
        prune.STAGE,
        quantize.STAGE,
    )
}
