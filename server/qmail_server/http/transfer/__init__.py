"""The file-transfer API: files sealed at rest, downloads for one use, mail with files."""
