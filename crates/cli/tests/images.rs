//! `stagely images`: the list from the real API; commands, which need an orchestrator, at a server that remembers them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use stagely_domain::id::{CloudAccountId, ImageId};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::stand::{Stand, stagely};

/// What a server was asked, and what it says of every image.
#[derive(Clone)]
struct Server {
    calls: Arc<Mutex<Vec<String>>>,
    account: CloudAccountId,
    image: ImageId,
    shown: Value,
}

impl Server {
    async fn start(shown: Value) -> (Self, SocketAddr) {
        let (account, image) = (CloudAccountId::generate(), ImageId::generate());
        let server = Self { calls: Arc::default(), account, image, shown };
        let router = Router::new()
            .route("/api/v1/cloud-accounts", get(accounts))
            .route("/api/v1/cloud-accounts/{id}/images", post(bake))
            .route("/api/v1/images/{id}", get(show).delete(remove))
            .with_state(server.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the test's runtime.
        TaskTracker::new().spawn(async move { axum::serve(listener, router).await.unwrap() });
        (server, address)
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

async fn accounts(State(server): State<Server>) -> Json<Value> {
    Json(json!({ "items": [{ "id": server.account, "name": "hetzner-eu" }], "next_cursor": null }))
}

async fn bake(State(server): State<Server>, Path(id): Path<String>, Json(body): Json<Value>) -> Json<Value> {
    server.note(format!("bake {id} {body}"));
    Json(json!({ "image": server.image }))
}

async fn show(State(server): State<Server>, Path(id): Path<String>) -> Json<Value> {
    let mut shown = server.shown;
    shown["id"] = id.into();
    Json(shown)
}

async fn remove(State(server): State<Server>, Path(id): Path<String>) -> Json<Value> {
    server.note(format!("remove {id}"));
    Json(json!({ "image": id }))
}

fn run(address: SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    stagely(arguments, &[("STAGELY_URL", &format!("http://{address}")), ("STAGELY_TOKEN", "stg_any")])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_baked_at_an_account_by_its_name_or_id_waited_for_and_removed() {
    let shown = json!({
        "state": "ready", "removing": false, "reference": "4711", "failure": null,
        "costs": [{ "micros": 4100, "currency": "EUR" }],
    });
    let (server, address) = Server::start(shown).await;
    let (account, image) = (server.account.to_string(), server.image.to_string());
    let arguments = ["images", "bake", "--account", "hetzner-eu", "--arch", "arm64"];
    let bases = ["--base-image", "debian:13-slim", "--base-image", "node:24"];
    let (code, out, err) = run(address, &[&arguments[..], &bases[..]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(&image) && out.contains("images ls"), "{out}");

    let (code, out, err) = run(address, &["images", "bake", "--account", &account, "--wait"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("{image}: new machines boot 4711\nits machine cost 0.0041 EUR\n"));

    let (code, out, _) = run(address, &["images", "rm", &image]);
    assert_eq!((code, out), (0, format!("{image}: is being removed\n")));
    let asked = json!({ "arch": "arm64", "base_images": ["debian:13-slim", "node:24"] });
    let plain = json!({ "arch": "amd64", "base_images": [] });
    let calls = [format!("bake {account} {asked}"), format!("bake {account} {plain}"), format!("remove {image}")];
    assert_eq!(*server.calls.lock().unwrap(), calls);

    let (code, _, err) = run(address, &["images", "bake", "--account", "attic"]);
    assert!(code == 1 && err.contains("no cloud account `attic`: there are hetzner-eu"), "{code} {err}");
    let (code, _, err) = run(address, &["images", "rm", "../projects/1"]);
    assert!(code == 2 && err.contains("is not an id"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bake_that_failed_says_why_and_ends_with_its_own_code() {
    let failure = json!({
        "code": "timed_out", "phase": "bake", "service": null, "exit_code": null,
        "message": "the machine was not baked", "log_tail": "E: unable to fetch",
    });
    let shown = json!({ "state": "failed", "removing": false, "failure": failure, "costs": [] });
    let (_, address) = Server::start(shown).await;
    let (code, out, _) = run(address, &["images", "bake", "--account", "hetzner-eu", "--wait"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("the machine was not baked [timed_out]") && out.contains("| E: unable to fetch"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_with_where_they_stand_and_a_viewer_bakes_none() {
    let stand = Stand::start().await;
    let failure = r#"{"code": "timed_out", "phase": "bake", "message": "no disk", "log_tail": ""}"#;
    let rows = [
        ("ready", "present", "NULL".to_owned()),
        ("ready", "absent", "NULL".to_owned()),
        ("failed", "present", format!("'{failure}'")),
        ("gone", "absent", "NULL".to_owned()),
    ];
    for (state, desired, failure) in rows {
        let id = ImageId::generate().uuid();
        stand
            .db
            .execute(&format!(
                "INSERT INTO images (id, team_id, account_id, arch, base_images, state, desired, failure, reference) \
                 SELECT '{id}', team_id, id, 'amd64', '[\"debian:13-slim\"]', '{state}', '{desired}', {failure}, '1' \
                 FROM cloud_providers"
            ))
            .await;
    }
    let (code, out, err) = stand.run(&["images", "ls"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(lines.len(), 3, "{out}");
    for (line, parts) in lines.iter().zip([["failed", "no disk"], ["removing", "debian"], ["ready", "debian"]]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    let (code, _, err) = stand.run(&["images", "bake", "--account", "metal"]);
    assert!(code == 3 && err.contains("role admin"), "{code} {err}");
    stand.stop().await;
}
