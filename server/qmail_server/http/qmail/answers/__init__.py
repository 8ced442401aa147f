"""The bodies of answers that are built from engine values, by topic."""
