//! What people do with the API.

use reqwest::Method;
use serde_json::json;
use stagely_domain::id::EnvironmentId;

use crate::support::Stand;

#[tokio::test]
async fn a_team_sets_up_an_account_and_a_project_and_takes_them_down() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let account = json!({ "name": "attic", "kind": "qemu" });
    let (status, made) = stand.post("/api/v1/cloud-accounts", &world.admin, account.clone()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(stand.post("/api/v1/cloud-accounts", &world.admin, account).await.0, 409);

    let project = json!({ "repo": "own/blog", "cloud_account": made["id"] });
    let (status, project) = stand.post("/api/v1/projects", &world.admin, project).await;
    assert_eq!(status, 201, "{project}");
    let path = format!("/api/v1/projects/{}", project["id"].as_str().unwrap());
    assert_eq!(stand.get(&path, &world.viewer).await, (200, project.clone()));
    let again = json!({ "repo": "OWN/Blog", "cloud_account": made["id"] });
    assert_eq!(stand.post("/api/v1/projects", &world.admin, again).await.0, 409);

    assert_eq!(stand.request(Method::DELETE, &path, &world.admin).send().await.unwrap().status(), 204);
    assert_eq!(stand.get(&path, &world.viewer).await.0, 404);
    let account = format!("/api/v1/cloud-accounts/{}", made["id"].as_str().unwrap());
    assert_eq!(stand.request(Method::DELETE, &account, &world.admin).send().await.unwrap().status(), 204);
    assert_eq!(stand.get(&account, &world.viewer).await.0, 404);
    let audit = "SELECT string_agg(action, ' ' ORDER BY id) FROM audit_logs WHERE actor_kind = 'token'";
    assert_eq!(stand.db.text(audit).await, "cloud_account.create project.create project.delete cloud_account.delete");
    stand.stop().await;
}

fn hetzner(credentials: serde_json::Value) -> serde_json::Value {
    let settings = json!({ "locations": ["nbg1"], "ingress_from": ["203.0.113.7/32"] });
    json!({ "name": "eu", "kind": "hetzner", "settings": settings, "credentials": credentials })
}

#[tokio::test]
async fn an_accounts_credentials_are_asked_of_the_cloud_sealed_and_never_shown_again() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let (status, made) =
        stand.post("/api/v1/cloud-accounts", &world.admin, hetzner(json!({ "token": "s3cret" }))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!((&made["has_credentials"], &made["settings"]["locations"]), (&json!(true), &json!(["nbg1"])));
    let (_, listed) = stand.get("/api/v1/cloud-accounts", &world.viewer).await;
    assert!(!format!("{made}{listed}").contains("s3cret"));
    let plain = "SELECT count(*) FROM cloud_providers WHERE position('s3cret'::bytea IN credentials_sealed) > 0";
    assert_eq!(stand.db.text(plain).await, "0");
    stand.stop().await;
}

#[tokio::test]
async fn an_image_is_asked_for_shown_and_removed_and_what_cannot_be_is_refused_with_a_sentence() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let path = format!("/api/v1/cloud-accounts/{}/images", world.account);
    let (status, made) = stand.post(&path, &world.admin, json!({ "base_images": ["debian:13-slim", "node:24"] })).await;
    assert_eq!(status, 202, "{made}");
    assert!(made["image"].as_str().unwrap().starts_with("img_"), "{made}");
    assert_eq!(stand.post(&path, &world.member, json!({})).await.0, 403);
    for (body, code, named) in [
        (json!({ "arch": "arm64" }), "cannot_bake", "ask for amd64"),
        (json!({ "base_images": ["a; reboot"] }), "invalid_image", "debian:13-slim"),
        (json!({ "arch": "sparc" }), "invalid_body", "sparc"),
        (json!({ "size": "small" }), "invalid_body", "size"),
    ] {
        let (status, problem) = stand.post(&path, &world.admin, body).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some(code)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    stand
        .db
        .execute(&format!(
            "INSERT INTO cost_entries (id, team_id, machine_id, from_at, to_at, micros, currency) \
             VALUES (gen_random_uuid(), '{}', '{}', now(), now(), 4100, 'EUR')",
            world.team.uuid(),
            world.machine.uuid(),
        ))
        .await;
    let one = format!("/api/v1/images/{}", world.image);
    let (status, image) = stand.get(&one, &world.viewer).await;
    assert_eq!((status, &image["state"], &image["reference"]), (200, &json!("ready"), &json!("4711")), "{image}");
    assert_eq!((&image["costs"], &image["removing"]), (&json!([{ "micros": 4100, "currency": "EUR" }]), &json!(false)));
    assert_eq!(stand.get("/api/v1/images", &world.viewer).await.1["items"], json!([image]));
    let removed = stand.request(Method::DELETE, &one, &world.admin).send().await.unwrap();
    assert_eq!(removed.status(), 202);
    let calls = [format!("bake {} amd64 debian:13-slim node:24", world.account), format!("drop {}", world.image)];
    assert_eq!(stand.orchestrator.calls(), calls);
    let audit = "SELECT string_agg(action, ' ' ORDER BY id) FROM audit_logs WHERE actor_kind = 'token'";
    assert_eq!(stand.db.text(audit).await, "image.bake image.delete");
    stand.db.execute("UPDATE images SET state = 'gone', deleted_at = now()").await;
    assert_eq!(stand.get("/api/v1/images", &world.viewer).await.1["items"], json!([]));
    assert_eq!(stand.get(&one, &world.viewer).await.1["state"], "gone");
    stand.stop().await;
}

#[tokio::test]
async fn bad_bodies_are_told_what_is_wrong() {
    let stand = Stand::start().await;
    let (own, other) = (stand.world("own").await, stand.world("other").await);
    let cases = [
        ("/api/v1/cloud-accounts", json!({ "name": "eu", "kind": "hetzner" }), 422, "`settings.ingress_from`"),
        ("/api/v1/cloud-accounts", hetzner(json!({})), 422, "`credentials.token` is missing"),
        ("/api/v1/cloud-accounts", hetzner(json!({ "token": "t", "key": "k" })), 422, "`credentials.key` is unknown"),
        ("/api/v1/cloud-accounts", hetzner(json!({ "token": "bad" })), 422, "the token is not valid"),
        ("/api/v1/cloud-accounts", json!({ "name": "No!", "kind": "qemu" }), 422, "`name`"),
        ("/api/v1/cloud-accounts", json!({ "name": "eu", "kind": "azure" }), 422, "azure"),
        ("/api/v1/cloud-accounts", json!({ "name": "eu", "kind": "qemu", "x": 1 }), 422, "unknown field `x`"),
        ("/api/v1/projects", json!({ "repo": "shop", "cloud_account": own.account }), 422, "owner/name"),
        ("/api/v1/projects", json!({ "repo": "a/$(reboot)", "cloud_account": own.account }), 422, "owner/name"),
        ("/api/v1/projects", json!({ "repo": "a/b", "cloud_account": other.account }), 422, "none of the team's"),
        ("/api/v1/projects", json!({ "repo": "a/b" }), 422, "cloud_account"),
    ];
    for (path, body, status, named) in cases {
        let (got, problem) = stand.post(path, &own.admin, body).await;
        assert_eq!(got, status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    let long = stand.request(Method::POST, "/api/v1/projects", &own.admin).header("content-type", "application/json");
    assert_eq!(long.body(vec![b' '; 300_000]).send().await.unwrap().status(), 413);
    for path in ["/api/v1/environments?limit=0", "/api/v1/environments?cursor=run_1", "/api/v1/environments?sort=up"] {
        assert_eq!(stand.get(path, &own.viewer).await.0, 400, "{path}");
    }
    assert_eq!(stand.get("/api/v1/environments/12", &own.viewer).await.0, 400);
    stand.stop().await;
}

#[tokio::test]
async fn an_environment_shows_its_urls_machine_services_and_run() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let (status, environment) = stand.get(&format!("/api/v1/environments/{}", world.environment), &world.viewer).await;
    assert_eq!(status, 200, "{environment}");
    assert_eq!(environment["url"], "https://ownhash.preview.localhost");
    assert_eq!((environment["pr"].as_i64(), environment["repo"].as_str()), (Some(12), Some("own/shop")));
    assert_eq!(environment["machine"]["id"], world.machine.to_string());
    assert_eq!(environment["services"][0]["health"], "healthy");
    assert_eq!(environment["latest_run"]["time_to_live_ms"], 18_000);
    let (_, run) = stand.get(&format!("/api/v1/runs/{}", world.run), &world.viewer).await;
    assert_eq!(run["timeline"][0]["name"], "queue");
    assert_eq!(run["timeline"][1]["ms"], 1000);
    assert_eq!(run["builds"][0]["target"], "web");
    let (_, status) = stand.get("/api/v1/status", &world.viewer).await;
    assert_eq!(status["environments"], json!({ "live": 1 }));
    assert_eq!(status["pending_deliveries"], 1);
    let (_, whoami) = stand.get("/api/v1/whoami", &world.viewer).await;
    assert_eq!(whoami["role"], "viewer");
    stand.stop().await;
}

#[tokio::test]
async fn costs_are_shown_by_environment_and_by_day_and_currencies_are_not_added_up() {
    let stand = Stand::start().await;
    let (own, other) = (stand.world("own").await, stand.world("other").await);
    // Two hours across midnight, one of them of a builder; another currency; and another team's.
    for (world, env, at, micros, currency) in [
        (&own, true, "2026-10-31T23:30:00Z", 6_000, "EUR"),
        (&own, true, "2026-11-01T00:30:00Z", 7_000, "EUR"),
        (&own, false, "2026-11-01T00:45:00Z", 500, "EUR"),
        (&own, true, "2026-11-01T03:00:00Z", 11_900, "USD"),
        (&other, true, "2026-11-01T00:00:00Z", 99, "EUR"),
    ] {
        let env = if env { format!("'{}'", world.environment.uuid()) } else { "NULL".to_owned() };
        stand
            .db
            .execute(&format!(
                "INSERT INTO cost_entries (id, at, team_id, project_id, env_id, machine_id, from_at, to_at, micros, currency) \
                 VALUES (gen_random_uuid(), '{at}', '{}', '{}', {env}, '{}', '{at}', '{at}', {micros}, '{currency}')",
                world.team.uuid(),
                world.project.uuid(),
                world.machine.uuid(),
            ))
            .await;
    }
    let in_all = json!([{ "micros": 13_000, "currency": "EUR" }, { "micros": 11_900, "currency": "USD" }]);
    let one = format!("/api/v1/environments/{}", own.environment);
    assert_eq!(stand.get(&one, &own.viewer).await.1["costs"], in_all);
    assert_eq!(stand.get("/api/v1/environments", &own.viewer).await.1["items"][0]["costs"], in_all);
    let costs = format!("/api/v1/projects/{}/costs", own.project);
    let line = |day: &str, micros: u64, currency: &str| json!({ "day": day, "micros": micros, "currency": currency });
    let of = async |query: &str| stand.get(&format!("{costs}?{query}"), &own.viewer).await.1["items"].clone();
    let november = [line("2026-11-01", 7_500, "EUR"), line("2026-11-01", 11_900, "USD")];
    assert_eq!(of("from=2026-11-01&to=2026-11-30").await, json!(november));
    assert_eq!(of("from=2026-10-01&to=2026-10-31").await, json!([line("2026-10-31", 6_000, "EUR")]));
    assert_eq!(of("from=2020-01-01&to=2020-12-31").await, json!([]));
    for (query, named) in [
        ("from=2026-11-02&to=2026-11-01", "`from` is not after `to`"),
        ("from=2024-01-01&to=2026-01-01", "366 days"),
        ("from=-262143-01-01&to=2026-01-01", "366 days"),
        ("to=-262143-01-01", "from 1970"),
        ("to=%2B262142-12-31", "to 9999"),
        ("from=yesterday", "from"),
        ("since=2026-11-01", "since"),
    ] {
        let (status, problem) = stand.get(&format!("{costs}?{query}"), &own.viewer).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("invalid_query")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    stand.stop().await;
}

#[tokio::test]
async fn lists_are_paged_filtered_and_leave_out_what_is_gone() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    for number in 0..7 {
        let id = EnvironmentId::generate().uuid();
        let gone = if number == 6 { "now()" } else { "NULL" };
        stand
            .db
            .execute(&format!(
                "INSERT INTO environments (id, team_id, project_id, pr_number, preview_hash, desired, desired_sha, \
                   state, ttl_secs, expires_at, gone_at) \
                 VALUES ('{id}', '{}', '{}', {}, 'h{number}', 'present', '', 'queued', 1, now(), {gone})",
                world.team.uuid(),
                world.project.uuid(),
                100 + number,
            ))
            .await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = stand.get(&format!("/api/v1/environments?limit=3{cursor}"), &world.viewer).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["pr"].as_i64().unwrap()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [105, 104, 103, 102, 101, 100, 12]);
    for (query, count) in [("state=queued", 6), ("state=queued&gone=true", 7), ("pr=12", 1), ("pr=13", 0)] {
        let (_, page) = stand.get(&format!("/api/v1/environments?{query}"), &world.viewer).await;
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}");
    }
    stand.stop().await;
}

#[tokio::test]
async fn commands_go_to_the_orchestrator_and_into_the_audit_log() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let id = world.environment;
    let commands = ["redeploy", "sleep", "wake", "pin", "unpin", "destroy"];
    for (done, command) in commands.iter().enumerate() {
        let path = format!("/api/v1/environments/{id}/{command}");
        let (status, accepted) = stand.post(&path, &world.member, json!({})).await;
        assert_eq!((status, accepted["generation"].as_u64().unwrap()), (202, done as u64 + 2));
    }
    let (status, _) =
        stand.post(&format!("/api/v1/deliveries/{}/replay", world.delivery), &world.member, json!({})).await;
    assert_eq!(status, 202);
    let mut calls: Vec<String> = commands.iter().map(|command| format!("{command} {id}")).collect();
    calls.push(format!("replay {}", world.delivery));
    assert_eq!(stand.orchestrator.calls(), calls);
    let audit = "SELECT string_agg(action, ' ' ORDER BY id) FROM audit_logs WHERE actor_kind = 'token'";
    assert_eq!(
        stand.db.text(audit).await,
        "environment.redeploy environment.sleep environment.wake environment.pin environment.unpin \
         environment.destroy delivery.replay"
    );
    stand.stop().await;
}

#[tokio::test]
async fn what_the_orchestrator_refuses_is_said_and_what_breaks_is_not() {
    let stand = Stand::start().await;
    let world = stand.world("own").await;
    let path = format!("/api/v1/environments/{}/sleep", world.environment);
    let cases = [
        (tonic::Status::failed_precondition("it is being destroyed"), 409, "it is being destroyed"),
        (tonic::Status::not_found("row 17 of environments"), 404, "there is no such environment"),
        (tonic::Status::unavailable("10.0.0.7:9101 refused"), 503, "try again"),
        (tonic::Status::internal("panicked at src/secret.rs"), 500, "fault of Stagely"),
    ];
    for (failure, status, said) in cases {
        let hidden = failure.message().to_owned();
        stand.orchestrator.fail_with(Some(failure));
        let (got, problem) = stand.post(&path, &world.member, json!({})).await;
        assert_eq!(got, status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        assert_eq!(problem.get("instance").is_some(), status >= 500, "{problem}");
        assert!(status == 409 || !problem.to_string().contains(&hidden), "{problem}");
    }
    let audited = stand.db.text("SELECT count(*) FROM audit_logs WHERE action = 'environment.sleep'").await;
    assert_eq!(audited, "0", "what was refused did not happen");
    stand.stop().await;
}
