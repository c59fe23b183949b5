-- How often a provider refused to make the machine in a way that may pass: after some the run is told.
ALTER TABLE machines ADD COLUMN refusals int NOT NULL DEFAULT 0;
