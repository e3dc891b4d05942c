"""`python -m biasdiff_core` is the command line."""

from biasdiff_core.cli import main

main()
