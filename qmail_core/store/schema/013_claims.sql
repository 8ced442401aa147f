-- The mail whose payment a work takes: how the work ends is what becomes of the payment. Empty: no mail's.
ALTER TABLE work ADD COLUMN payment BLOB NOT NULL DEFAULT x'';
