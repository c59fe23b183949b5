-- The whole of Stagely's data (docs/architecture.md, "Data"). Conventions: uuid (v7) primary keys made by
-- the writer; `team_id` on every tenant row; `desired`/`generation` is the wish, the rest is fact; a row
-- that may matter later is soft-deleted (`gone_at`, `deleted_at`, `removed_at`), never removed by a service.

CREATE TABLE installation (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id          uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE teams (
    id          uuid PRIMARY KEY,
    slug        text NOT NULL UNIQUE,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz
);

CREATE TABLE users (
    id          uuid PRIMARY KEY,
    login       text NOT NULL,
    name        text NOT NULL DEFAULT '',
    provider    text NOT NULL,
    subject     text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz,
    UNIQUE (provider, subject)
);

CREATE TABLE team_members (
    team_id     uuid NOT NULL REFERENCES teams (id),
    user_id     uuid NOT NULL REFERENCES users (id),
    role        text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, user_id)
);

CREATE TABLE sessions (
    token_hash   bytea PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id),
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);

CREATE TABLE api_tokens (
    id           uuid PRIMARY KEY,
    team_id      uuid NOT NULL REFERENCES teams (id),
    name         text NOT NULL,
    token_hash   bytea NOT NULL UNIQUE,
    role         text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_by   uuid REFERENCES users (id),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);

CREATE TABLE cloud_providers (
    id                 uuid PRIMARY KEY,
    team_id            uuid NOT NULL REFERENCES teams (id),
    name               text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('aws', 'digitalocean', 'hetzner', 'qemu')),
    settings           jsonb NOT NULL DEFAULT '{}',
    credentials_sealed bytea,
    verified_at        timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz
);
CREATE UNIQUE INDEX cloud_providers_name ON cloud_providers (team_id, name) WHERE deleted_at IS NULL;

CREATE TABLE projects (
    id                uuid PRIMARY KEY,
    team_id           uuid NOT NULL REFERENCES teams (id),
    forge             text NOT NULL CHECK (forge IN ('github')),
    repo              text NOT NULL,
    cloud_provider_id uuid REFERENCES cloud_providers (id),
    settings          jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT now(),
    deleted_at        timestamptz
);
CREATE UNIQUE INDEX projects_repo ON projects (forge, lower(repo)) WHERE deleted_at IS NULL;

CREATE TABLE secrets (
    id          uuid PRIMARY KEY,
    team_id     uuid NOT NULL REFERENCES teams (id),
    project_id  uuid REFERENCES projects (id),
    name        text NOT NULL,
    version     int NOT NULL DEFAULT 1,
    sealed      bytea NOT NULL,
    created_by  uuid REFERENCES users (id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz
);
CREATE UNIQUE INDEX secrets_name ON secrets (team_id, project_id, name) NULLS NOT DISTINCT WHERE deleted_at IS NULL;

-- Webhook deliveries: api inserts and answers 202; the orchestrator decides and applies.
CREATE TABLE inbox (
    id            uuid PRIMARY KEY,
    source        text NOT NULL,
    delivery_guid uuid NOT NULL,
    event         text NOT NULL,
    action        text,
    repo          text,
    pr_number     bigint,
    body_sha256   bytea NOT NULL,
    body          bytea NOT NULL,
    received_at   timestamptz NOT NULL DEFAULT now(),
    decision      text CHECK (decision IN ('applied', 'ignored', 'failed')),
    reason        text,
    applied_at    timestamptz,
    UNIQUE (source, delivery_guid)
);
CREATE INDEX inbox_received ON inbox (received_at DESC);

CREATE TABLE environments (
    id                  uuid PRIMARY KEY,
    team_id             uuid NOT NULL REFERENCES teams (id),
    project_id          uuid NOT NULL REFERENCES projects (id),
    pr_number           bigint NOT NULL,
    title               text NOT NULL DEFAULT '',
    branch              text NOT NULL DEFAULT '',
    author              text NOT NULL DEFAULT '',
    pr_url              text NOT NULL DEFAULT '',
    preview_hash        text NOT NULL UNIQUE,
    desired             text NOT NULL CHECK (desired IN ('present', 'absent')),
    desired_power       text NOT NULL DEFAULT 'awake' CHECK (desired_power IN ('awake', 'asleep')),
    desired_sha         text NOT NULL,
    generation          bigint NOT NULL DEFAULT 1,
    observed_generation bigint NOT NULL DEFAULT 0,
    state               text NOT NULL,
    reason              text,
    pinned              boolean NOT NULL DEFAULT false,
    ttl_secs            bigint NOT NULL,
    expires_at          timestamptz NOT NULL,
    sleep_after_secs    bigint,
    last_activity_at    timestamptz NOT NULL DEFAULT now(),
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    gone_at             timestamptz
);
CREATE UNIQUE INDEX environments_pr ON environments (project_id, pr_number) WHERE gone_at IS NULL;
CREATE INDEX environments_team ON environments (team_id, created_at DESC);

CREATE TABLE workflow_runs (
    id          uuid PRIMARY KEY,
    team_id     uuid NOT NULL REFERENCES teams (id),
    env_id      uuid NOT NULL REFERENCES environments (id),
    generation  bigint NOT NULL,
    sha         text NOT NULL,
    cause       text NOT NULL,
    state       text NOT NULL,
    -- The resolved stagely.yaml and compose facts of this commit; null until they were read.
    spec        jsonb,
    -- {code, phase, service, exit_code, message, log_tail}; null unless the run failed.
    failure     jsonb,
    -- {phase: {started_at, finished_at}} for the phases that no other row records.
    phases      jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    live_at     timestamptz,
    finished_at timestamptz,
    UNIQUE (env_id, generation)
);
CREATE INDEX workflow_runs_team ON workflow_runs (team_id, created_at DESC);

CREATE TABLE machines (
    id              uuid PRIMARY KEY,
    team_id         uuid NOT NULL REFERENCES teams (id),
    project_id      uuid NOT NULL REFERENCES projects (id),
    env_id          uuid REFERENCES environments (id),
    account_id      uuid NOT NULL REFERENCES cloud_providers (id),
    role            text NOT NULL CHECK (role IN ('preview', 'builder')),
    size            text NOT NULL,
    arch            text NOT NULL,
    desired         text NOT NULL DEFAULT 'present' CHECK (desired IN ('present', 'absent')),
    desired_power   text NOT NULL DEFAULT 'awake' CHECK (desired_power IN ('awake', 'asleep')),
    state           text NOT NULL,
    provider_id     text,
    address         text,
    failure         jsonb,
    create_deadline timestamptz,
    expires_at      timestamptz NOT NULL,
    lease_until     timestamptz,
    absent_seen_at  timestamptz,
    intended_at     timestamptz NOT NULL DEFAULT now(),
    placed_at       timestamptz,
    enrolled_at     timestamptz,
    drop_at         timestamptz,
    gone_at         timestamptz
);
CREATE INDEX machines_env ON machines (env_id) WHERE gone_at IS NULL;
CREATE INDEX machines_live ON machines (account_id) WHERE gone_at IS NULL;

-- One row per machine: its enrolment, its connection, the wish sent to its agent and what the agent last said.
CREATE TABLE agent_connections (
    machine_id          uuid PRIMARY KEY REFERENCES machines (id),
    enrol_token_hash    bytea NOT NULL,
    enrol_deadline      timestamptz NOT NULL,
    enrolled_at         timestamptz,
    public_key          bytea,
    ingress_cert_sha256 bytea,
    conn_epoch          bigint NOT NULL DEFAULT 0,
    hub_id              text,
    connected_at        timestamptz,
    last_seen_at        timestamptz,
    revoked_at          timestamptz,
    suspect_at          timestamptz,
    desired_generation  bigint NOT NULL DEFAULT 0,
    desired_sealed      bytea,
    observed_generation bigint NOT NULL DEFAULT 0,
    observed            jsonb
);

CREATE TABLE build_jobs (
    id           uuid PRIMARY KEY,
    team_id      uuid NOT NULL REFERENCES teams (id),
    project_id   uuid NOT NULL REFERENCES projects (id),
    env_id       uuid NOT NULL REFERENCES environments (id),
    run_id       uuid NOT NULL REFERENCES workflow_runs (id),
    target       text NOT NULL,
    platform     text NOT NULL,
    -- {context, dockerfile, stage, args, size, image, sha, repo}
    spec         jsonb NOT NULL,
    state        text NOT NULL,
    machine_id   uuid REFERENCES machines (id),
    image_digest text,
    failure      jsonb,
    attempt      int NOT NULL DEFAULT 0,
    queued_at    timestamptz NOT NULL DEFAULT now(),
    assigned_at  timestamptz,
    building_at  timestamptz,
    pushing_at   timestamptz,
    finished_at  timestamptz,
    UNIQUE (run_id, target, platform)
);
CREATE INDEX build_jobs_open ON build_jobs (project_id) WHERE finished_at IS NULL;
CREATE INDEX build_jobs_machine ON build_jobs (machine_id);

-- A log is one ordered stream of bytes; `next_offset` is what was stored, so a resent chunk is recognised.
CREATE TABLE log_streams (
    id          uuid PRIMARY KEY,
    team_id     uuid NOT NULL REFERENCES teams (id),
    machine_id  uuid NOT NULL REFERENCES machines (id),
    env_id      uuid REFERENCES environments (id),
    build_id    uuid REFERENCES build_jobs (id),
    name        text NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    closed_at   timestamptz,
    UNIQUE (machine_id, name)
);
CREATE INDEX log_streams_env ON log_streams (env_id, created_at);

CREATE TABLE build_logs (
    stream_id   uuid NOT NULL,
    byte_offset bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    content     text NOT NULL,
    lost_bytes  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (stream_id, byte_offset, at)
) PARTITION BY RANGE (at);

CREATE TABLE routes (
    host       text PRIMARY KEY,
    team_id    uuid NOT NULL REFERENCES teams (id),
    env_id     uuid NOT NULL REFERENCES environments (id),
    generation bigint NOT NULL,
    -- Rises with every change of any route: what a reader has seen is one number.
    version    bigint NOT NULL,
    state      text NOT NULL CHECK (state IN ('waiting', 'ready', 'asleep', 'failed', 'gone')),
    -- {machine, address, rules: [{path, exposure}], message, ...}: what the edge needs, and no more.
    entry      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
CREATE INDEX routes_env ON routes (env_id);
CREATE SEQUENCE route_version;

CREATE TABLE pr_posts (
    id          uuid PRIMARY KEY,
    team_id     uuid NOT NULL REFERENCES teams (id),
    env_id      uuid NOT NULL REFERENCES environments (id),
    kind        text NOT NULL CHECK (kind IN ('comment', 'check', 'deployment')),
    -- The commit a check or a deployment is about; empty for the comment.
    sha         text NOT NULL DEFAULT '',
    wanted      jsonb NOT NULL,
    wanted_seq  bigint NOT NULL DEFAULT 1,
    posted_seq  bigint NOT NULL DEFAULT 0,
    remote_id   text,
    last_error  text,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (env_id, kind, sha)
);

CREATE TABLE certificates (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('internal_ca', 'token_signing', 'public')),
    subject    text NOT NULL,
    cert_pem   text NOT NULL,
    key_sealed bytea NOT NULL,
    not_after  timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);
CREATE UNIQUE INDEX certificates_current ON certificates (kind, subject) WHERE retired_at IS NULL;

CREATE TABLE audit_logs (
    id          uuid NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    team_id     uuid,
    actor_kind  text NOT NULL,
    actor       text NOT NULL,
    action      text NOT NULL,
    target_kind text NOT NULL,
    target      text NOT NULL,
    detail      jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);

CREATE TABLE cost_entries (
    id           uuid NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    team_id      uuid NOT NULL,
    project_id   uuid NOT NULL,
    env_id       uuid,
    machine_id   uuid NOT NULL,
    from_at      timestamptz NOT NULL,
    to_at        timestamptz NOT NULL,
    micros       bigint NOT NULL,
    currency     text NOT NULL,
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);

-- Makes the partition of each month from the current one to `ahead` months on; safe to repeat.
CREATE FUNCTION ensure_month_partitions(parent text, ahead int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    month date;
BEGIN
    FOR step IN 0..ahead LOOP
        month := date_trunc('month', now())::date + make_interval(months => step);
        IF to_regclass(parent || to_char(month, '_YYYYMM')) IS NULL THEN
            EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                parent || to_char(month, '_YYYYMM'), parent, month, (month + interval '1 month')::date);
        END IF;
    END LOOP;
END $$;

-- Rows outside the known months are kept here rather than refused.
CREATE TABLE build_logs_rest PARTITION OF build_logs DEFAULT;
CREATE TABLE audit_logs_rest PARTITION OF audit_logs DEFAULT;
CREATE TABLE cost_entries_rest PARTITION OF cost_entries DEFAULT;
SELECT ensure_month_partitions(parent, 2) FROM unnest(ARRAY['build_logs', 'audit_logs', 'cost_entries']) AS parent;

-- The keyed work queue: one row per resource, so a thousand wakes are one row.
CREATE TABLE work (
    kind        text NOT NULL,
    key         uuid NOT NULL,
    run_after   timestamptz NOT NULL DEFAULT now(),
    not_before  timestamptz NOT NULL DEFAULT '-infinity', -- back-off: a wake does not defeat it
    wake_seq    bigint NOT NULL DEFAULT 1,                -- rises with every wake
    claimed_seq bigint NOT NULL DEFAULT 0,                -- the wake_seq that the holder saw
    epoch       bigint NOT NULL DEFAULT 0,                -- fencing token, +1 per claim
    lease_owner text,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    attempt     int NOT NULL DEFAULT 0,
    parked      boolean NOT NULL DEFAULT false,
    last_error  text,
    PRIMARY KEY (kind, key)
);
CREATE INDEX work_due ON work (kind, run_after) WHERE NOT parked;
