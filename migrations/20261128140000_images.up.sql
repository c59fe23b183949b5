-- Golden images: what machines of an account boot instead of the provider's stock image. `desired` is what people wish;
-- one that failed is cleared away all the same and stays as a row that says why. `deleted_at` says that the provider has
-- nothing of it any more.
CREATE TABLE images (
    id           uuid PRIMARY KEY,
    team_id      uuid NOT NULL REFERENCES teams (id),
    account_id   uuid NOT NULL REFERENCES cloud_providers (id),
    arch         text NOT NULL,
    base_images  jsonb NOT NULL DEFAULT '[]',
    agent_sha256 text,
    desired      text NOT NULL DEFAULT 'present' CHECK (desired IN ('present', 'absent')),
    generation   bigint NOT NULL DEFAULT 1,
    state        text NOT NULL DEFAULT 'baking' CHECK (state IN ('baking', 'ready', 'failed', 'gone')),
    -- The machine that it is made of.
    machine_id   uuid REFERENCES machines (id),
    -- The provider's name of it, and where machines can boot it; everywhere when that is empty.
    reference    text,
    locations    jsonb NOT NULL DEFAULT '[]',
    failure      jsonb,
    created_at   timestamptz NOT NULL DEFAULT now(),
    ready_at     timestamptz,
    deleted_at   timestamptz,
    CHECK (state <> 'ready' OR reference IS NOT NULL)
);
CREATE INDEX images_account ON images (account_id, arch) WHERE state <> 'gone';
CREATE INDEX images_team ON images (team_id, id) WHERE state <> 'gone';
CREATE UNIQUE INDEX images_machine ON images (machine_id);

-- A machine that an image is made of is for no project, and what it costs is the team's. The others name the image that
-- they are created with, before the call.
ALTER TABLE machines
    ALTER COLUMN project_id DROP NOT NULL,
    DROP CONSTRAINT machines_role_check,
    ADD CONSTRAINT machines_role_check CHECK (role IN ('preview', 'builder', 'bake')),
    ADD CONSTRAINT machines_project_check CHECK (role = 'bake' OR project_id IS NOT NULL),
    ADD COLUMN image_id uuid REFERENCES images (id),
    ADD COLUMN image text,
    ADD CONSTRAINT machines_image_check CHECK ((image_id IS NULL) = (image IS NULL));
CREATE INDEX machines_image ON machines (image_id) WHERE state = 'creating';
ALTER TABLE cost_entries ALTER COLUMN project_id DROP NOT NULL;
