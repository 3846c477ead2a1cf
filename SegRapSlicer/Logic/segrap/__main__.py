"""`python -m segrap` is the `segrap` command."""

from segrap.cli import main

main(prog_name="segrap")
