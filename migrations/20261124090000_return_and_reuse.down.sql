DROP INDEX build_jobs_of_environment;
ALTER TABLE agent_connections DROP COLUMN return_until;
