"""Bad inputs as data: a module for each group, which `bad_inputs.py` runs."""
