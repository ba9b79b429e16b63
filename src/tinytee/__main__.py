"""``python -m tinytee``."""

from tinytee.cli import main

main()
