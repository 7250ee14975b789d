"""These modules start workers where there are GPUs: here, on a Ray cluster, through SLURM, or by printing a command.

A launcher starts processes, each of which trains what the results folder leaves to it. Records and leases there are the
only truth: no launcher hands out cells, and losing one loses nothing. What is wanted travels as plain data.
"""
