-- What sweeps of an account know of each other: when the last began, and between which two there was none. What was made
-- in between and has no row may be of a newer database than this one, which was restored.
CREATE TABLE sweeps (
    account_id uuid PRIMARY KEY REFERENCES cloud_providers (id),
    swept_at timestamptz NOT NULL,
    blind_from timestamptz,
    blind_until timestamptz,
    CHECK ((blind_from IS NULL) = (blind_until IS NULL))
);
