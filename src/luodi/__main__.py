"""`python -m luodi` is the command line."""

from luodi.cli import main

main()
