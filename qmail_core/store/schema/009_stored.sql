-- Files are sealed in a layout with some more bytes than before, so their stored size is no longer known from the plain
-- one. Those of before: a header of 8 bytes, segments of 64 KiB with 16 bytes each, and one segment at least.

ALTER TABLE transfer_file ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
UPDATE transfer_file SET stored = 8 + size + 16 * max(1, (size + 65535) / 65536);
