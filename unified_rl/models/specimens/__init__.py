"""Small random checkpoints in the authors' layouts, names and shapes written out by hand, and the
sizes of the published ones: for dry runs, benchmarks and tests.
"""
