"""The stages of a run, and how to add one.

1. Write a file in this folder, such as halve.py, with a function of settings and `Inputs` that
   returns the new model:

       def run(settings, inputs):
           return tfpeft.scale_width(inputs.model, settings.part)

2. Declare its flags beside it: `FLAGS = (Flag("part", float, 0.5, "Part of ...", above=0.0),)`.
3. If some flags do not go together, write a `check(settings)` that raises an `InputError`.
4. Put the three into `STAGE = Stage("halve", FLAGS, run, check=check)`.
5. Add `halve.STAGE` to the list below. --stages takes it, --help shows its flags, a run resumes
   after it, and the report has a row of it.

`Inputs` has the data, the folder, and the models before (stage.py). A stage that trains calls
`common.training.fit`.
"""

from pipelines.stages import distill, prune, quantize, sparse_train

STAGES = {
    stage.name: stage
    for stage in (
        distill.STAGE,
        sparse_train.STAGE,
        prune.STAGE,
        quantize.STAGE,
    )
}
