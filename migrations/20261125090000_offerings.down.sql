ALTER TABLE machines
    DROP COLUMN tried,
    DROP COLUMN offering;
