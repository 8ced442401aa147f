"""Files for the file-transfer API: sealed at rest, uploaded in pieces, sent with mail, downloaded once."""
