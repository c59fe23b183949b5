-- Since when the provider bills the machine without a break; null while it does not. What runs today counts from now on.
ALTER TABLE machines ADD COLUMN billed_from timestamptz;
UPDATE machines SET billed_from = now() WHERE placed_at IS NOT NULL AND gone_at IS NULL AND state <> 'hibernated';
CREATE INDEX machines_billed ON machines (account_id) WHERE billed_from IS NOT NULL;

-- `at` is where the entry's hour begins: an hour of a machine is counted once, however often it is written.
CREATE UNIQUE INDEX cost_entries_once ON cost_entries (machine_id, at);
CREATE INDEX cost_entries_environment ON cost_entries (env_id);
CREATE INDEX cost_entries_project ON cost_entries (project_id, at);
