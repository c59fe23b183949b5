-- One row in every table, so that a migration is tried on data.
INSERT INTO installation (id) VALUES ('00000000-0000-7000-8000-000000000001');
INSERT INTO teams (id, slug, name) VALUES ('00000000-0000-7000-8000-000000000002', 'acme', 'Acme');
INSERT INTO users (id, login, provider, subject) VALUES ('00000000-0000-7000-8000-000000000003', 'ada', 'github', '1');
INSERT INTO team_members (team_id, user_id, role)
SELECT teams.id, users.id, 'owner' FROM teams, users;
INSERT INTO sessions (token_hash, user_id, expires_at) SELECT 'hash', id, now() + interval '1 day' FROM users;
INSERT INTO api_tokens (id, team_id, name, token_hash, role, created_by)
SELECT '00000000-0000-7000-8000-000000000004', teams.id, 'ci', 'hash', 'member', users.id FROM teams, users;
INSERT INTO cloud_providers (id, team_id, name, kind) SELECT '00000000-0000-7000-8000-000000000005', id, 'metal', 'qemu' FROM teams;
INSERT INTO projects (id, team_id, forge, repo, cloud_provider_id)
SELECT '00000000-0000-7000-8000-000000000006', team_id, 'github', 'acme/shop', id FROM cloud_providers;
INSERT INTO secrets (id, team_id, project_id, name, sealed)
SELECT '00000000-0000-7000-8000-000000000007', team_id, id, 'STRIPE_KEY', 'sealed' FROM projects;
INSERT INTO inbox (id, source, delivery_guid, event, body_sha256, body)
VALUES ('00000000-0000-7000-8000-000000000008', 'github', gen_random_uuid(), 'pull_request', 'sha', '{}');
INSERT INTO environments (id, team_id, project_id, pr_number, preview_hash, desired, desired_sha, state, ttl_secs, expires_at)
SELECT '00000000-0000-7000-8000-000000000009', team_id, id, 7, 'x7k2', 'present', repeat('0', 40), 'queued', 3600, now()
FROM projects;
INSERT INTO workflow_runs (id, team_id, env_id, generation, sha, cause, state)
SELECT '00000000-0000-7000-8000-000000000010', team_id, id, 1, desired_sha, 'opened', 'pending' FROM environments;
INSERT INTO machines (id, team_id, project_id, env_id, account_id, role, size, arch, state, expires_at)
SELECT '00000000-0000-7000-8000-000000000011', e.team_id, e.project_id, e.id, p.cloud_provider_id, 'preview', 'medium', 'amd64',
       'intended', now()
FROM environments e JOIN projects p ON p.id = e.project_id;
INSERT INTO agent_connections (machine_id, enrol_token_hash, enrol_deadline) SELECT id, 'hash', now() FROM machines;
INSERT INTO build_jobs (id, team_id, project_id, env_id, run_id, target, platform, spec, state)
SELECT '00000000-0000-7000-8000-000000000012', e.team_id, e.project_id, e.id, r.id, 'api', 'linux/amd64', '{}', 'queued'
FROM environments e JOIN workflow_runs r ON r.env_id = e.id;
INSERT INTO log_streams (id, team_id, machine_id, env_id, build_id, name)
SELECT '00000000-0000-7000-8000-000000000013', m.team_id, m.id, m.env_id, b.id, 'build' FROM machines m, build_jobs b;
INSERT INTO build_logs (stream_id, byte_offset, content) SELECT id, 0, 'hello' FROM log_streams;
INSERT INTO routes (host, team_id, env_id, generation, version, state, entry)
SELECT 'x7k2.example.test', team_id, id, 1, nextval('route_version'), 'waiting', '{}' FROM environments;
INSERT INTO pr_posts (id, team_id, env_id, kind, wanted)
SELECT '00000000-0000-7000-8000-000000000014', team_id, id, 'comment', '{}' FROM environments;
INSERT INTO certificates (id, kind, subject, cert_pem, key_sealed, not_after)
VALUES ('00000000-0000-7000-8000-000000000015', 'internal_ca', 'ca', 'pem', 'sealed', now());
INSERT INTO audit_logs (id, actor_kind, actor, action, target_kind, target)
VALUES ('00000000-0000-7000-8000-000000000016', 'user', 'ada', 'sign_in', 'team', 'acme');
INSERT INTO cost_entries (id, team_id, project_id, machine_id, from_at, to_at, micros, currency)
SELECT '00000000-0000-7000-8000-000000000017', team_id, project_id, id, now(), now(), 1, 'EUR' FROM machines;
INSERT INTO sweeps (account_id, swept_at) SELECT id, now() FROM cloud_providers;
INSERT INTO images (id, team_id, account_id, arch, machine_id, state, reference)
SELECT '00000000-0000-7000-8000-000000000018', team_id, account_id, arch, id, 'ready', 'img-1' FROM machines;
UPDATE machines SET image_id = images.id, image = images.reference FROM images;
INSERT INTO work (kind, key) SELECT 'environment', id FROM environments;
