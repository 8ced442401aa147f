"""Surface 1: the QMail node API (docs/api/qmail.md)."""
