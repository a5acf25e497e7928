"""Mutated files, images and command lines, and what fcnlab makes of them.

    python -m benchmarks.failures.mutations

All mutations follow from a seed. Commands are called in the process of the harness, since imports dominate. A case ends
well with exit code 0 and a valid result, or with exit code 2 and lines that name the file or option (`predict` skips
images that it cannot read, with exit code 1). It fails with a traceback, after the time limit, with more memory
than the limit, with a changed file outside of the output folder, or if a mutation that changes the meaning of a file is
ignored.
"""
