use stagely_domain::id::ProjectId;
use stagely_store::tenants::{Page, Project};
use stagely_store::testing::TestDb;
use stagely_store::{Scope, StoreError};

const ALL: Scope = Scope::system("look at tenants in a test");

#[tokio::test]
async fn an_installation_has_one_id_whoever_asks_first() {
    let db = TestDb::new().await;
    let store = db.store();
    let (one, two) = tokio::join!(store.ensure_installation(), store.ensure_installation());
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(db.text("SELECT count(*) FROM installation").await, "1");
    db.drop_database().await;
}

#[tokio::test]
async fn a_repository_is_watched_once_however_it_is_spelled() {
    let db = TestDb::new().await;
    let (acme, rival) = (db.team("acme").await, db.team("rival").await);
    let id = db.project(acme, "Acme/Shop", None).await;
    let found = db.store().find_project(&ALL, "acme/SHOP").await.unwrap().unwrap();
    assert_eq!((found.id, found.team), (id, acme));

    let again = Project {
        id: ProjectId::generate(),
        team: rival,
        repo: "acme/shop".into(),
        account: None,
        settings: serde_json::json!({}),
    };
    let tx = db.store().begin().await.unwrap();
    let refused = tx.insert_project(&again).await.unwrap_err();
    assert!(matches!(refused, StoreError::Exists("project")), "{refused}");
    drop(tx);

    // Once it is not watched any more, someone else may.
    let tx = db.store().begin().await.unwrap();
    tx.delete_project(&ALL, id).await.unwrap();
    tx.insert_project(&again).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.store().find_project(&ALL, "acme/shop").await.unwrap().unwrap().team, rival);
    let gone = db.store().get_project(&ALL, id).await.unwrap_err();
    assert!(matches!(gone, StoreError::NotFound("project")), "{gone}");
    db.drop_database().await;
}

#[tokio::test]
async fn projects_are_listed_in_pages_without_gap_or_repeat() {
    let db = TestDb::new().await;
    let team = db.team("acme").await;
    let mut made = Vec::new();
    for number in 0..7 {
        made.push(db.project(team, &format!("acme/{number}"), None).await);
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = db.store().list_projects(&ALL, Page { limit: 3, after }).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.id.uuid());
        listed.extend(page.iter().map(|project| project.id));
    }
    assert_eq!(listed, made);
    db.drop_database().await;
}
