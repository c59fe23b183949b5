ALTER TABLE environments DROP COLUMN stays_gone;
