"""The `db` bucket: everything that is answered from the local store alone."""
