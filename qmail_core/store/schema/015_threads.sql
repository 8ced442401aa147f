-- What tells to which thread a message belongs is forgotten once nothing is left of the thread, the longest unused first.
CREATE INDEX thread_by_use ON thread (used_at);
