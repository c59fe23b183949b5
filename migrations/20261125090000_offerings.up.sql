-- What a machine is created as, and what had no room for it before.
ALTER TABLE machines
    ADD COLUMN offering jsonb,
    ADD COLUMN tried    jsonb NOT NULL DEFAULT '[]';
