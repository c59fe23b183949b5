-- Until when a machine that was woken may come back with a credential that ran out while it slept.
ALTER TABLE agent_connections ADD COLUMN return_until timestamptz;

-- Each push looks for the newest images of its environment.
CREATE INDEX build_jobs_of_environment ON build_jobs (env_id);
