-- What nobody will read is not kept: the objects of a send once its upload has ended, and the coins of spent lockers, which
-- leave when others are filled.

CREATE TRIGGER send_uploaded AFTER UPDATE OF stage ON send WHEN OLD.stage = 'upload' AND NEW.stage <> 'upload' BEGIN
    DELETE FROM send_object WHERE guid = NEW.guid;
END;

DELETE FROM send_object WHERE guid IN (SELECT guid FROM send WHERE stage <> 'upload');
DELETE FROM locker_coin WHERE code IN (SELECT code FROM locker WHERE state = 2);
