"""What `./run_all.sh` calls: the notebooks in their order, only where something changed.

`plan` has the options, the chosen notebooks and what each one needs; `run` executes them and knows
what is up to date; `imports` finds the code that a notebook depends on; `kernel` is the process in
which a notebook runs. `python -m recsys_utils.pipeline --help` lists the options.
"""
