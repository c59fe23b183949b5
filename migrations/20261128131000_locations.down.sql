ALTER TABLE machines DROP COLUMN locations;
