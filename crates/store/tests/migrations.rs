use stagely_store::testing::TestDb;

/// Every table of the design, and those added since.
const TABLES: &str = "agent_connections api_tokens audit_logs build_jobs build_logs certificates cloud_providers cost_entries \
                      environments images inbox installation log_streams machines pr_posts projects routes secrets sessions \
                      sweeps team_members teams users work workflow_runs";

/// One row in each of them.
const ROWS: &str = include_str!("every_table.sql");

#[tokio::test]
async fn every_migration_goes_down_and_up_again_on_a_database_with_data() {
    let db = TestDb::new().await;
    let store = db.store();
    assert_eq!(tables(&db).await, TABLES);
    for round in ["first", "second"] {
        db.execute(ROWS).await;
        for table in TABLES.split_whitespace() {
            assert_eq!(db.text(&format!("SELECT count(*) FROM {table}")).await, "1", "{table}, {round} time");
        }
        store.migrate_down(0).await.unwrap();
        assert_eq!(tables(&db).await, "");
        let left = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
        assert_eq!(db.text(left).await, "0", "functions go with what uses them");
        store.migrate_up().await.unwrap();
        assert_eq!(tables(&db).await, TABLES);
    }
    db.drop_database().await;
}

#[test]
fn every_table_is_described() {
    let page = include_str!("../../../docs/database.md");
    let missing: Vec<_> = TABLES.split_whitespace().filter(|table| !page.contains(&format!("`{table}`"))).collect();
    assert!(missing.is_empty(), "docs/database.md says nothing of {missing:?}");
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let db = TestDb::new().await;
    db.execute(ROWS).await;
    db.store().migrate_up().await.unwrap();
    assert_eq!(db.text("SELECT count(*) FROM environments").await, "1");
    db.drop_database().await;
}

#[tokio::test]
async fn going_back_before_images_forgets_what_was_baked_and_keeps_the_rest() {
    let db = TestDb::new().await;
    db.execute(ROWS).await;
    db.execute(
        "INSERT INTO machines (id, team_id, account_id, role, size, arch, state, expires_at) \
         SELECT '00000000-0000-7000-8000-000000000099', team_id, id, 'bake', 'small', 'amd64', 'booting', now() FROM cloud_providers; \
         INSERT INTO cost_entries (id, team_id, machine_id, from_at, to_at, micros, currency) \
         SELECT gen_random_uuid(), team_id, id, now(), now(), 1, 'EUR' FROM machines WHERE role = 'bake'; \
         INSERT INTO work (kind, key) SELECT 'image', id FROM images UNION ALL SELECT 'machine', id FROM machines",
    )
    .await;
    db.store().migrate_down(20_261_127_090_000).await.unwrap();
    let left = "(SELECT string_agg(role, ' ') FROM machines) || ' ' || (SELECT count(*) FROM cost_entries) || ' ' || \
                (SELECT string_agg(kind, ' ' ORDER BY kind) FROM work)";
    assert_eq!(db.text(left).await, "preview 1 environment machine");
    db.store().migrate_up().await.unwrap();
    assert_eq!(tables(&db).await, TABLES);
    db.drop_database().await;
}

#[tokio::test]
async fn append_only_rows_land_in_their_month_and_old_ones_are_kept_too() {
    let db = TestDb::new().await;
    db.store().ensure_partitions().await.unwrap();
    db.store().ensure_partitions().await.unwrap();
    db.execute(
        "INSERT INTO audit_logs (id, at, actor_kind, actor, action, target_kind, target) \
         SELECT gen_random_uuid(), at, 'user', 'u', 'look', 'project', 'p' FROM unnest(ARRAY[now(), '2001-01-01']) AS at",
    )
    .await;
    let homes = "SELECT string_agg(tableoid::regclass::text, ' ' ORDER BY at DESC) FROM audit_logs";
    let month = db.text("to_char(now(), 'YYYYMM')").await;
    assert_eq!(db.text(homes).await, format!("audit_logs_{month} audit_logs_rest"));
    db.drop_database().await;
}

/// A test's database is its own, and goes with it.
#[tokio::test]
async fn a_test_leaves_no_database_and_sees_no_other() {
    let (one, two) = (TestDb::new().await, TestDb::new().await);
    one.team("acme").await;
    assert!(two.store().find_team("acme").await.unwrap().is_none());
    let name = one.text("current_database()").await;
    let exists = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(two.text(&exists).await, "1");
    drop(one);
    assert_eq!(two.text(&exists).await, "0");
    two.drop_database().await;
}

async fn tables(db: &TestDb) -> String {
    db.text(
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
         WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_sqlx_migrations'",
    )
    .await
}
