"""Scripts on top of tfpeft, one a job: python -m pipelines.compress --help"""
