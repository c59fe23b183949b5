DROP TABLE work;
DROP TABLE cost_entries, audit_logs;
DROP FUNCTION ensure_month_partitions(text, int);
DROP TABLE certificates, pr_posts, routes;
DROP SEQUENCE route_version;
DROP TABLE build_logs, log_streams, build_jobs, agent_connections, machines, workflow_runs, environments, inbox;
DROP TABLE secrets, projects, cloud_providers, api_tokens, sessions, team_members, users, teams, installation;
