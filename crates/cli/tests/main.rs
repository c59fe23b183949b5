//! The command line as its user sees it: the real binary against the real API on a real database.
#![allow(clippy::unwrap_used)]

mod accounts;
mod cloud;
mod conformance;
#[expect(dead_code, reason = "most of what it can do is for the providers' own tests")]
#[path = "../../cloud/tests/double.rs"]
mod double;
mod images;
mod stand;

use stand::{Stand, stagely};

#[test]
fn a_valid_file_is_said_to_be_valid_and_mistakes_are_listed_with_their_places() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stagely.yaml");
    std::fs::write(&file, "version: 2\npreview:\n  size: medium\n").unwrap();
    let compose = directory.path().join("docker-compose.yml");
    std::fs::write(&compose, "services:\n  web: {image: nginx, ports: ['80']}\n").unwrap();
    let path = file.to_str().unwrap();
    let (code, out, err) = stagely(&["validate", path], &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, format!("{path}: valid\n").as_str(), ""));

    std::fs::write(&file, "version: 2\npreview:\n  siez: medium\n  arch: sparc\n").unwrap();
    let (code, out, err) = stagely(&["validate", path], &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(&format!("{path}:3:3:")) && err.contains("size"), "{err}");
    assert!(err.contains(&format!("{path}:4:")) && err.contains("2 mistakes"), "{err}");

    std::fs::write(&file, "version: 2\npreview:\n  siez: medium\n  health: {service: wbe}\n").unwrap();
    let (_, _, err) = stagely(&["validate", path], &[]);
    assert!(err.contains("siez") && err.contains("did you mean `web`") && err.contains("2 mistakes"), "{err}");
    std::fs::write(&compose, "services:\n  web: nginx\n").unwrap();
    let (_, _, err) = stagely(&["validate", path], &[]);
    assert!(err.contains("siez") && err.contains("docker-compose.yml:2:8: services.web:"), "{err}");
    std::fs::remove_file(&compose).unwrap();
    std::fs::write(&file, "version: 2\n").unwrap();
    let (code, _, err) = stagely(&["validate", path], &[]);
    assert!(code == 1 && err.contains("docker-compose.yml:1:1: there is no such file"), "{err}");

    let (code, _, err) = stagely(&["validate", "/nowhere/stagely.yaml"], &[]);
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/stagely.yaml"), "{err}");
}

#[test]
fn the_schema_that_editors_check_the_file_by_is_printed() {
    let (code, out, err) = stagely(&["validate", "--schema"], &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["required"], serde_json::json!(["version"]));
    let (code, _, err) = stagely(&["validate", "--schema", "stagely.yaml"], &[]);
    assert!(code == 2 && err.contains("--schema"), "{code} {err}");
}

#[test]
fn a_wrong_command_line_or_a_missing_setting_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let home = [("HOME", home.path().to_str().unwrap())];
    let (code, _, err) = stagely(&["env", "explode"], &home);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = stagely(&["status"], &home);
    assert!(code == 2 && err.contains("STAGELY_URL"), "{code} {err}");
    let (code, _, err) = stagely(&["status", "--url", "http://127.0.0.1:1"], &home);
    assert!(code == 2 && err.contains("STAGELY_TOKEN") && err.contains("stagelyd admin token"), "{code} {err}");
    let (code, _, err) = stagely(&["status", "--url", "http://127.0.0.1:1", "--token", "stg_x"], &home);
    assert!(code == 4 && err.contains("nothing answers there"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_looks_at_an_environment_its_run_and_its_logs() {
    let stand = Stand::start().await;
    let (code, out, err) = stand.run(&["env", "ls"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("own/shop#12") && out.contains("https://ownhash.preview.localhost"), "{out}");
    assert!(!out.contains('\u{1b}'), "a title cannot drive the terminal: {out:?}");

    let (code, out, _) = stand.run(&["env", "show", "12"]);
    assert_eq!(code, 0);
    assert!(out.contains(&stand.environment) && out.contains("web running healthy"), "{out}");
    assert!(out.contains("cost          0.0104 EUR so far\n"), "{out}");
    stand.db.execute("UPDATE environments SET gone_at = now()").await;
    let (_, out, _) = stand.run(&["env", "show", &stand.environment]);
    assert!(out.contains("cost          0.0104 EUR\n"), "{out}");
    stand.db.execute("UPDATE environments SET gone_at = NULL").await;
    let (code, out, _) = stand.run(&["env", "logs", "12", "service/web"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"));
    let (code, out, _) = stand.run(&["env", "logs", "12", "service/web", "-f"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"), "a closed log ends by itself");
    let (code, _, err) = stand.run(&["env", "logs", "12", "service/db"]);
    assert!(code == 1 && err.contains("there are service/web"), "{err}");

    let (code, out, _) = stand.run(&["run", "show", &stand.run_id]);
    assert_eq!(code, 0);
    assert!(out.contains("live after 18.0 s") && out.contains("read") && out.contains("1.0 s"), "{out}");
    let (code, out, _) = stand.run(&["status", "-o", "json"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["environments"]["live"], 1);
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_own_exit_codes_and_say_why() {
    let stand = Stand::start().await;
    let (code, _, err) = stand.run(&["env", "show", "99"]);
    assert!(code == 1 && err.contains("no environment of a pull request #99"), "{code} {err}");
    let (code, _, err) = stand.run(&["env", "show", "../../admin"]);
    assert!(code == 2 && err.contains("is not an id"), "{code} {err}");
    let (code, _, err) = stand.run(&["env", "destroy", "12"]);
    assert!(code == 3 && err.contains("role member"), "a viewer destroys nothing: {code} {err}");
    let (code, _, err) = stand.run(&["env", "ls", "--token", "stg_wrong"]);
    assert!(code == 3 && err.contains("refuses the token"), "{code} {err}");
    stand.stop().await;
}
