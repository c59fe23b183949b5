use stagely_domain::id::EnvironmentId;
use stagely_store::environments::{NewEnvironment, PullRequest};
use stagely_store::testing::TestDb;

/// Every table of the design, and those added since.
const TABLES: &str = "agent_connections api_tokens audit_logs build_jobs build_logs certificates cloud_providers cost_entries \
                      environments inbox installation log_streams machines pr_posts projects routes secrets sessions \
                      team_members teams users work workflow_runs";

async fn tables(db: &TestDb) -> String {
    db.text(
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
         WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_sqlx_migrations'",
    )
    .await
}

#[tokio::test]
async fn every_migration_goes_down_and_up_again_on_a_database_with_data() {
    let db = TestDb::new().await;
    assert_eq!(tables(&db).await, TABLES);
    let (store, team) = (db.store(), db.team("acme").await);
    let account = db.qemu_account(team).await;
    let project = db.project(team, "acme/shop", Some(account)).await;
    let tx = store.begin().await.unwrap();
    let pr = PullRequest {
        number: 7,
        title: "t".into(),
        branch: "b".into(),
        author: "a".into(),
        url: "u".into(),
        sha: "0".repeat(40),
    };
    let new = NewEnvironment { id: EnvironmentId::generate(), team, project, pr, hash: "x7k2".into(), ttl_secs: 3600 };
    tx.insert_environment(&new).await.unwrap();
    tx.commit().await.unwrap();

    store.migrate_down(0).await.unwrap();
    assert_eq!(tables(&db).await, "");
    store.migrate_up().await.unwrap();
    assert_eq!(tables(&db).await, TABLES);
    db.drop_database().await;
}
