-- Settings and credentials can be changed: whoever holds a client of the account compares this with what it was opened by.
ALTER TABLE cloud_providers
    ADD COLUMN generation bigint NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
