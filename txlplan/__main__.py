"""`python -m txlplan`."""

from txlplan.cli import main

main()
