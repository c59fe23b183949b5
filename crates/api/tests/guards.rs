//! Guards that remember: each of these walks the whole route table, so a new route cannot escape it.

use reqwest::Method;
use serde_json::Value;
use stagely_api::operation::{Operation, Permission};
use stagely_api::router::operations;
use stagely_domain::role::Role;

use crate::support::{Stand, random};

fn guarded() -> impl Iterator<Item = (Operation, Role)> {
    operations().into_iter().filter_map(|operation| match operation.permission {
        Permission::Role(role) => Some((operation, role)),
        _ => None,
    })
}

#[tokio::test]
async fn no_guarded_route_answers_without_a_valid_token() {
    let stand = Stand::start().await;
    let world = stand.world("a").await;
    let revoked = stand.token(world.team, Role::Owner).await;
    stand.db.execute("UPDATE api_tokens SET revoked_at = now() WHERE role = 'owner'").await;
    let unknown = format!("stg_{}", "A".repeat(43));
    for (operation, _) in guarded() {
        let path = world.fill(operation.path);
        for token in ["", "stg_short", "ghp_0123456789", unknown.as_str(), revoked.as_str()] {
            let response = stand.request(operation.method.clone(), &path, token).send().await.unwrap();
            assert_eq!(response.status(), 401, "{} with `{token}`", operation.id);
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"stagely\"");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
        let bare = stand.http.request(operation.method.clone(), format!("{}{path}", stand.url)).send().await.unwrap();
        assert_eq!(bare.status(), 401, "{} without a token", operation.id);
    }
    stand.stop().await;
}

#[tokio::test]
async fn a_route_lets_its_role_in_and_no_lesser_one() {
    let stand = Stand::start().await;
    let world = stand.world("a").await;
    for (operation, needed) in guarded() {
        for role in Role::ALL {
            let token = stand.token(world.team, role).await;
            let path = random(operation.path);
            let status = stand.request(operation.method.clone(), &path, &token).send().await.unwrap().status();
            assert_eq!(status == 403, !role.allows(needed), "{} as {role}: {status}", operation.id);
        }
        assert!(!operation.is_mutation() || needed > Role::Viewer, "{}: a viewer only looks", operation.id);
    }
    assert_eq!(stand.orchestrator.calls(), Vec::<String>::new());
    stand.stop().await;
}

/// Where a body is needed, one that changes nothing.
fn ask(stand: &Stand, operation: &Operation, path: &str, token: &str) -> reqwest::RequestBuilder {
    let request = stand.request(operation.method.clone(), path, token);
    if operation.body.is_some() { request.json(&serde_json::json!({})) } else { request }
}

#[tokio::test]
async fn another_teams_rows_look_exactly_like_no_rows() {
    let stand = Stand::start().await;
    let (own, other) = (stand.world("own").await, stand.world("other").await);
    let mut seen = 0;
    for (operation, _) in guarded().filter(|(operation, _)| operation.path.contains('{')) {
        let mut answers = Vec::new();
        for path in [other.fill(operation.path), random(operation.path)] {
            let response = ask(&stand, &operation, &path, &own.admin).send().await.unwrap();
            let (status, headers) = (response.status(), format!("{:?}", without_date(&response)));
            answers.push((status, headers, response.bytes().await.unwrap()));
        }
        assert_eq!(answers[0].0, 404, "{}", operation.id);
        assert_eq!(answers[0], answers[1], "{}", operation.id);
        let mine = ask(&stand, &operation, &own.fill(operation.path), &own.admin).send().await.unwrap();
        // Deleting what is in use is refused; everything else of one's own is there.
        assert!(mine.status().is_success() || mine.status() == 409, "{}: {}", operation.id, mine.status());
        seen += 1;
        if operation.id == "delete_project" {
            stand.db.execute("UPDATE projects SET deleted_at = NULL").await;
        }
    }
    assert!(seen >= 15, "the table shrank to {seen} routes with ids");
    // Lists do not mix either.
    for path in
        ["/api/v1/environments", "/api/v1/projects", "/api/v1/deliveries", "/api/v1/cloud-accounts", "/api/v1/images"]
    {
        let (_, page) = stand.get(path, &own.viewer).await;
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{path}");
        assert!(!page.to_string().contains(&other.repo), "{path}");
    }
    stand.stop().await;
}

fn without_date(response: &reqwest::Response) -> Vec<(String, String)> {
    let headers = response.headers().iter().filter(|(name, _)| *name != "date");
    headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn the_document_describes_every_route_and_refers_to_nothing_missing() {
    let stand = Stand::start().await;
    let (status, document) = stand.get("/api/v1/openapi.json", "").await;
    assert_eq!((status, document["openapi"].as_str().unwrap()), (200, "3.1.0"));
    let mut ids = Vec::new();
    for operation in operations() {
        let method = operation.method.as_str().to_lowercase();
        let described = &document["paths"][operation.path][&method];
        assert_eq!(described["operationId"], operation.id, "{method} {}", operation.path);
        assert!(!described["summary"].as_str().unwrap().is_empty(), "{} has no summary", operation.id);
        ids.push(operation.id);
    }
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.values().map(|methods| methods.as_object().unwrap().len()).sum::<usize>(), ids.len());
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "operation ids are unique");
    let mut refs = Vec::new();
    collect_refs(&document, &mut refs);
    assert!(refs.len() > 20);
    for reference in refs {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(target.is_some(), "{reference} leads nowhere");
    }
    stand.stop().await;
}

fn collect_refs(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "$ref" => found.push(text.clone()),
                    other => collect_refs(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_refs(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_unknown_paths_are_problems() {
    let stand = Stand::start().await;
    for (method, path, status) in
        [(Method::GET, "/healthz", 200), (Method::GET, "/nowhere", 404), (Method::PUT, "/healthz", 405)]
    {
        let response = stand.request(method, path, "").send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["cache-control"], "no-store");
        if status >= 400 {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
    stand.stop().await;
}
