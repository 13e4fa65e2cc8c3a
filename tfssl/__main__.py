"""`python -m tfssl` is the command line."""

from tfssl.cli import main

main()
