"""`python -m hushtune` is the same as `hushtune`."""

from hushtune.cli import main

main()
