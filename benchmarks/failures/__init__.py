"""Harnesses that cause failures and damage in a lab, and check what fcnlab makes of them.

Each is a command, `python -m benchmarks.failures.NAME`, with a long form, whose counts are in docs/reliability.md, and a
short form in the test suite.
"""
