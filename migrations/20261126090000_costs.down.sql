DROP INDEX cost_entries_project;
DROP INDEX cost_entries_environment;
DROP INDEX cost_entries_once;
ALTER TABLE machines DROP COLUMN billed_from;
