"""Formats of the files of a trial that carry checksums, and the checks that find damage in them."""
