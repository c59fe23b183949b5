//! A database per test, cloned from one migrated template per schema.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use stagely_domain::account::Settings;
use stagely_domain::id::{CloudAccountId, ProjectId, TeamId};
use stagely_domain::machine::Provider;
use uuid::Uuid;

use crate::tenants::{CloudAccount, Project};
use crate::{MIGRATIONS, Result, Store, StoreError, Tx};

/// Held by whoever makes the template.
const TEMPLATE_LOCK: i64 = 0x5374_6167_656c_7900;

/// An empty, migrated database of one test. It goes with this value, as far as the server is willing.
pub struct TestDb {
    store: Store,
    url: String,
    /// Empty once the database is gone.
    name: String,
    base: PgConnectOptions,
}

impl TestDb {
    /// Makes one.
    ///
    /// # Panics
    /// When `STAGELY_TEST_DATABASE_URL` names no Postgres that lets us create databases.
    pub async fn new() -> Self {
        let base = base_url();
        let template = ensure_template(&base).await;
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut admin = PgConnection::connect_with(&base).await.expect("connect to the test Postgres");
        execute(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        admin.close().await.expect("close the connection");
        let url = base.clone().database(&name).to_url_lossy().to_string();
        let store = Store::connect(&url, 20).await.expect("connect to the test database");
        Self { store, url, name, base }
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs SQL that the product has no method for.
    ///
    /// # Panics
    /// When it fails.
    pub async fn execute(&self, sql: &str) {
        self.store.db.execute_unprepared(sql).await.expect(sql);
    }

    /// One value as text, for looking at what a method wrote.
    ///
    /// # Panics
    /// When the query fails or returns no row.
    pub async fn text(&self, sql: &str) -> String {
        let wrapped = format!("SELECT ({sql})::text AS value");
        let row = self.store.row("run a test's SQL", wrapped, []).await;
        row.expect(sql).expect("a row").get::<Option<String>>("value").expect("text").unwrap_or_default()
    }

    /// A team of that slug.
    ///
    /// # Panics
    /// When the database refuses it.
    pub async fn team(&self, slug: &str) -> TeamId {
        let id = TeamId::generate();
        let tx = self.store.begin().await.expect("begin");
        tx.insert_team(id, slug, slug).await.expect("insert a team");
        tx.commit().await.expect("commit");
        id
    }

    /// A `qemu` account of a team.
    ///
    /// # Panics
    /// When the database refuses it.
    pub async fn qemu_account(&self, team: TeamId) -> CloudAccountId {
        let id = CloudAccountId::generate();
        let tx = self.store.begin().await.expect("begin");
        let account = CloudAccount {
            id,
            team,
            name: "metal".to_owned(),
            kind: Provider::Qemu,
            settings: Settings::default(),
            credentials_sealed: None,
            generation: 1,
        };
        tx.insert_cloud_account(&account).await.expect("insert an account");
        tx.commit().await.expect("commit");
        id
    }

    /// A project of a team that watches `repo`.
    ///
    /// # Panics
    /// When the database refuses it.
    pub async fn project(&self, team: TeamId, repo: &str, account: Option<CloudAccountId>) -> ProjectId {
        let id = ProjectId::generate();
        let tx = self.store.begin().await.expect("begin");
        let project = Project { id, team, repo: repo.to_owned(), account, settings: serde_json::json!({}) };
        tx.insert_project(&project).await.expect("insert a project");
        tx.commit().await.expect("commit");
        id
    }

    /// Removes the database at once, connections and all.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn drop_database(mut self) {
        drop_database(&self.base, &std::mem::take(&mut self.name)).await.expect("drop the test database");
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (base, name) = (self.base.clone(), std::mem::take(&mut self.name));
        if name.is_empty() {
            return;
        }
        // A destructor cannot wait on the test's own runtime, which may be ending. What cannot be dropped now is left.
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let drop_it = async { tokio::time::timeout(Duration::from_secs(5), drop_database(&base, &name)).await };
            runtime.block_on(drop_it).ok()
        });
        let _ = dropper.join();
    }
}

impl Tx {
    /// Runs SQL that the product has no method for; how many rows it changed.
    ///
    /// # Errors
    /// The database's error.
    pub async fn execute(&self, sql: &str) -> Result<u64> {
        let done = self.inner.execute_unprepared(sql).await;
        Ok(done.map_err(|source| StoreError::query("run a test's SQL", source))?.rows_affected())
    }
}

async fn drop_database(base: &PgConnectOptions, name: &str) -> std::result::Result<(), sqlx::Error> {
    let mut admin = PgConnection::connect_with(base).await?;
    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut admin).await?;
    admin.close().await
}

#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn base_url() -> PgConnectOptions {
    std::env::var("STAGELY_TEST_DATABASE_URL")
        .expect("STAGELY_TEST_DATABASE_URL is not set: run `cargo xtask test integration`, which starts a Postgres")
        .parse()
        .expect("STAGELY_TEST_DATABASE_URL is a postgres:// address")
}

/// The migrated template of this schema, made by the first who needs it.
async fn ensure_template(base: &PgConnectOptions) -> String {
    let checksum: u32 = MIGRATIONS
        .iter()
        .flat_map(|migration| migration.checksum.iter())
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let name = format!("stagely_template_{checksum:08x}");
    let mut admin = PgConnection::connect_with(base).await.expect("connect to the test Postgres");
    execute(&mut admin, &format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})")).await;
    let found: Option<(i32,)> = sqlx::query_as("SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate")
        .bind(&name)
        .fetch_optional(&mut admin)
        .await
        .expect("look for the template");
    if found.is_none() {
        execute(&mut admin, &format!("DROP DATABASE IF EXISTS {name}")).await;
        execute(&mut admin, &format!("CREATE DATABASE {name}")).await;
        let mut fresh =
            PgConnection::connect_with(&base.clone().database(&name)).await.expect("connect to the template");
        MIGRATIONS.run(&mut fresh).await.expect("migrate the template");
        fresh.close().await.expect("close the template");
        execute(&mut admin, &format!("ALTER DATABASE {name} IS_TEMPLATE true")).await;
    }
    execute(&mut admin, &format!("SELECT pg_advisory_unlock({TEMPLATE_LOCK})")).await;
    name
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await.expect(sql);
}
