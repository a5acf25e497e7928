"""Harnesses that cause failures and damage in a lab, and check what fcnlab makes of them.

Each is a command, `python -m benchmarks.failures.NAME`. Its long form gives the counts in docs/reliability.md, and its
short form is a part of the test suite.
"""
