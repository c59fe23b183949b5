//! Credentials: the App's tokens, and what a machine may do with one.

use std::path::Path;
use std::sync::Arc;

use chrono::TimeDelta;
use stagely_domain::clock::{Clock, ManualClock, SystemClock};
use stagely_domain::secret::Secret;
use stagely_forge::github::Auth;
use stagely_forge::testing::{APP_KEY, CLONE_TOKEN, GitHost};
use stagely_forge::{Check, CheckStatus, CloneAccess, ErrorKind, Forge, GitHub, Repo};
use tokio_util::sync::CancellationToken;

use crate::support::{HOSTILE, REPO, app, clock, host, install_tls, token};

async fn host_at(clock: &ManualClock) -> (GitHost, GitHub, Repo) {
    install_tls();
    let host = GitHost::start_at(0, None, Arc::new(clock.clone()), CancellationToken::new()).await;
    host.create_repo(REPO, &[("README.md", b"x")]).await;
    host.create_repo("acme/other", &[("README.md", b"x")]).await;
    let client = app(&host, clock);
    (host, client, REPO.parse().unwrap())
}

#[tokio::test]
async fn an_app_gets_a_token_keeps_it_and_renews_it_before_it_ends() {
    let clock = clock();
    let (host, client, repo) = host_at(&clock).await;
    for _ in 0..3 {
        assert_eq!(client.pull_request(&repo, 1).await.unwrap(), None);
    }
    assert_eq!(host.issued_tokens(), 1, "kept");
    clock.advance(TimeDelta::minutes(54));
    client.pull_request(&repo, 1).await.unwrap();
    assert_eq!(host.issued_tokens(), 1);
    clock.advance(TimeDelta::minutes(2));
    client.pull_request(&repo, 1).await.unwrap();
    assert_eq!(host.issued_tokens(), 2, "renewed four minutes early");
    clock.advance(TimeDelta::hours(3));
    client.pull_request(&repo, 1).await.unwrap();
    assert_eq!(host.issued_tokens(), 3);
    client.pull_request(&"acme/other".parse().unwrap(), 1).await.unwrap();
    assert_eq!(host.issued_tokens(), 4, "one for each repository");
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_revoked_token_is_replaced_within_the_call() {
    let clock = clock();
    let (host, client, repo) = host_at(&clock).await;
    client.pull_request(&repo, 1).await.unwrap();
    host.revoke_tokens();
    assert_eq!(client.pull_request(&repo, 1).await.unwrap(), None);
    assert_eq!(host.issued_tokens(), 1);
}

#[tokio::test]
async fn an_app_that_is_not_installed_or_has_another_key_is_told_so() {
    let clock = clock();
    let (host, client, _) = host_at(&clock).await;
    let error = client.pull_request(&"nobody/here".parse().unwrap(), 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(error.message.contains("not installed on nobody/here"), "{error}");
    let as_app = |id: &str, key: &str, clock: ManualClock| {
        let auth = Auth::App { app_id: id.to_owned(), private_key: Secret::new(key) };
        GitHub::new(&host.api_url(), "http://x", auth, Arc::new(clock))
    };
    let repo: Repo = REPO.parse().unwrap();
    let other = as_app("12", APP_KEY, clock.clone()).unwrap();
    assert_eq!(other.pull_request(&repo, 1).await.unwrap_err().kind, ErrorKind::Auth);
    // GitHub forgives a client's clock that runs fast by less than a minute, because we begin a minute ago.
    let fast = |secs| ManualClock::at(clock.now() + TimeDelta::seconds(secs));
    assert!(as_app("4711", APP_KEY, fast(50)).unwrap().pull_request(&repo, 1).await.is_ok());
    assert!(as_app("4711", APP_KEY, fast(900)).unwrap().pull_request(&repo, 1).await.is_err());
    let refused = as_app("4711", "-----BEGIN NOTHING-----", clock.clone()).err().unwrap();
    assert_eq!(refused.kind, ErrorKind::Auth);
    assert!(!format!("{refused:?}").contains("NOTHING"));
}

#[tokio::test]
async fn a_machines_token_reads_its_repository_and_no_more() {
    let clock = clock();
    let (host, client, repo) = host_at(&clock).await;
    let access = client.clone_access(&repo).await.unwrap();
    assert_eq!(access.expires_at, Some(clock.now() + TimeDelta::hours(1)));
    assert_eq!(
        (access.url.as_str(), access.username.as_str()),
        (format!("{}/{REPO}.git", host.git_url("127.0.0.1")).as_str(), "x-access-token")
    );
    let machine = reads_and_no_more(&host, &repo, &access).await;
    assert_eq!(machine.file_at(&"acme/other".parse().unwrap(), "main", "README.md").await.unwrap(), None);

    let other = CloneAccess { url: access.url.replace(REPO, "acme/other"), ..access.clone() };
    assert!(clones(&access, access.token.reveal(), "main").await.is_some());
    assert!(clones(&other, access.token.reveal(), "main").await.is_none(), "another repository");
    clock.advance(TimeDelta::minutes(61));
    assert!(clones(&access, access.token.reveal(), "main").await.is_none(), "ended");
}

#[tokio::test]
async fn git_itself_clones_with_the_access_it_is_given_and_not_without() {
    let (host, client, repo) = host().await;
    let sha = host.commit(REPO, HOSTILE, Some("main"), &[("new.txt", b"x")], "Change").await;
    let number = host.open_pull_request(REPO, HOSTILE, "t").await;
    let access = client.clone_access(&repo).await.unwrap();
    let token = access.token.reveal();
    let clone = clones(&access, token, HOSTILE).await.expect("a clone of the branch");
    assert_eq!(std::fs::read(clone.path().join("new.txt")).unwrap(), b"x");
    assert_eq!(std::fs::read(clone.path().join("a/b c.txt")).unwrap(), b"deep\n");
    for wrong in ["", "wrong", "x-access-token", &token[1..]] {
        assert!(clones(&access, wrong, HOSTILE).await.is_none(), "{wrong}");
    }
    // The way of the agent and the builder: one commit by its name, or the pull request's own reference.
    for wanted in [sha.clone(), format!("refs/pull/{number}/head")] {
        let directory = tempfile::tempdir().unwrap();
        git(directory.path(), &["init", "-q"]).await.unwrap();
        git(directory.path(), &["fetch", "-q", "--depth=1", &with_password(&access, token), &wanted]).await.unwrap();
        assert_eq!(git(directory.path(), &["rev-parse", "FETCH_HEAD"]).await.unwrap().trim(), sha);
    }
}

#[tokio::test]
async fn a_machines_token_is_another_than_the_one_that_writes() {
    let (host, client, repo) = host().await;
    let access = client.clone_access(&repo).await.unwrap();
    assert_eq!(access.token.reveal(), CLONE_TOKEN);
    reads_and_no_more(&host, &repo, &access).await;
    assert!(clones(&access, access.token.reveal(), "main").await.is_some());
}

/// What a machine could make of its access.
async fn reads_and_no_more(host: &GitHost, repo: &Repo, access: &CloneAccess) -> GitHub {
    let auth = token(access.token.reveal());
    let machine = GitHub::new(&host.api_url(), "http://x", auth, Arc::new(SystemClock)).unwrap();
    assert!(machine.file_at(repo, "main", "README.md").await.unwrap().is_some());
    let check = Check {
        name: "x".into(),
        external_id: "x".into(),
        status: CheckStatus::Queued,
        title: "x".into(),
        summary: "x".into(),
        details_url: None,
    };
    assert_eq!(machine.ensure_check(repo, "main", None, &check).await.unwrap_err().kind, ErrorKind::Auth);
    machine
}

fn with_password(access: &CloneAccess, token: &str) -> String {
    access.url.replace("http://", &format!("http://{}:{token}@", access.username))
}

/// A clone of a branch, if git may have it.
async fn clones(access: &CloneAccess, token: &str, branch: &str) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let url = with_password(access, token);
    git(directory.path(), &["clone", "-q", "--branch", branch, &url, "."]).await.map(|_| directory)
}

/// What git printed, if it succeeded.
async fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new("git");
    command.arg("-C").arg(directory).args(arguments).env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true");
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}
