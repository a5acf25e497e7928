"""`python -m fcnlab` is `fcnlab`."""

from fcnlab.cli import main

main()
