ALTER TABLE cloud_providers DROP COLUMN generation, DROP COLUMN updated_at;
