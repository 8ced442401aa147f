"""`python -m qmail_server` is the command `qmail`."""

from qmail_server.cli import main

main()
