ALTER TABLE machines DROP COLUMN sleep_asked_at;
