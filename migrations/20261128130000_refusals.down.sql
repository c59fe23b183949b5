ALTER TABLE machines DROP COLUMN refusals;
