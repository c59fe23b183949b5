//! The GitHub client against a git host that checks every request with GitHub's own document.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use stagely_domain::clock::SystemClock;
use stagely_domain::secret::Secret;
use stagely_forge::testing::{GitHost, TOKEN};
use stagely_forge::{
    Check, CheckStatus, Conclusion, Deployment, DeploymentState, ErrorKind, Forge, GitHub, PullRequestState, Repo,
};
use tokio_util::sync::CancellationToken;

const REPO: &str = "acme/shop";
const HOSTILE: &str = "$(reboot);\"'";

async fn host() -> (GitHost, GitHub, Repo) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let host = GitHost::start(0, None, CancellationToken::new()).await;
    host.create_repo(REPO, &[("README.md", b"hello\n"), ("a/b c.txt", b"deep\n")]).await;
    let auth = stagely_forge::github::Auth::Token(Secret::new(TOKEN));
    let client = GitHub::new(&host.api_url(), &host.git_url("127.0.0.1"), auth, Arc::new(SystemClock)).unwrap();
    (host, client, REPO.parse().unwrap())
}

#[tokio::test]
async fn pull_requests_and_files_are_read_as_they_are_now() {
    let (host, client, repo) = host().await;
    let sha = host.commit(REPO, HOSTILE, Some("main"), &[("new.txt", b"x")], "Change").await;
    let number = host.open_pull_request(REPO, HOSTILE, "A <b>title</b>").await;
    let pull = client.pull_request(&repo, number).await.unwrap().unwrap();
    assert_eq!((pull.branch.as_str(), pull.sha.as_str(), pull.state), (HOSTILE, sha.as_str(), PullRequestState::Open));
    assert!(!pull.from_fork);
    assert_eq!(client.pull_request(&repo, 99).await.unwrap(), None);
    assert_eq!(client.file_at(&repo, &sha, "a/b c.txt").await.unwrap().unwrap(), b"deep\n");
    assert_eq!(client.file_at(&repo, &sha, "stagely.yaml").await.unwrap(), None);
    assert_eq!(client.changed_paths(&repo, number).await.unwrap(), ["new.txt"]);
    for index in 0..105 {
        host.commit(REPO, &format!("b{index}"), Some("main"), &[("f", b"x")], "c").await;
        host.open_pull_request(REPO, &format!("b{index}"), "t").await;
    }
    assert_eq!(client.list_open_pull_requests(&repo).await.unwrap().len(), 106, "every page is read");
    host.close_pull_request(REPO, number).await;
    assert_eq!(client.pull_request(&repo, number).await.unwrap().unwrap().state, PullRequestState::Closed);
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn there_is_one_comment_whatever_is_lost_or_deleted() {
    let (host, client, repo) = host().await;
    let number = host.open_pull_request(REPO, "main", "t").await;
    let marker = "<!-- stagely:env_1 -->";
    let first = client.ensure_comment(&repo, number, marker, None, "one").await.unwrap();
    // The id was lost: it is found by its marker.
    assert_eq!(client.ensure_comment(&repo, number, marker, None, "two").await.unwrap(), first);
    assert_eq!(client.ensure_comment(&repo, number, marker, Some(&first), "three").await.unwrap(), first);
    let comments = host.comments(REPO, number);
    assert_eq!((comments.len(), comments[0].body.as_str()), (1, "<!-- stagely:env_1 -->\nthree"));
    host.delete_comment(REPO, comments[0].id);
    let again = client.ensure_comment(&repo, number, marker, Some(&first), "four").await.unwrap();
    assert_ne!(again, first);
    assert_eq!(host.comments(REPO, number).len(), 1);
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn checks_and_deployments_are_found_again_and_moved_on() {
    let (host, client, repo) = host().await;
    let sha = host.commit(REPO, "b", Some("main"), &[("f", b"x")], "c").await;
    let mut check = Check {
        name: "Stagely preview".into(),
        external_id: "env_1".into(),
        status: CheckStatus::InProgress,
        title: "Building".into(),
        summary: "…".into(),
        details_url: Some("https://x.example.dev".into()),
    };
    let first = client.ensure_check(&repo, &sha, None, &check).await.unwrap();
    check.status = CheckStatus::Completed(Conclusion::Success);
    assert_eq!(client.ensure_check(&repo, &sha, None, &check).await.unwrap(), first);
    let checks = host.checks(REPO, &sha);
    assert_eq!((checks.len(), checks[0].state.as_str()), (1, "success"));

    let mut deployment =
        Deployment { environment: "preview/pr-1".into(), state: DeploymentState::InProgress, url: None, log_url: None };
    let first = client.ensure_deployment(&repo, &sha, None, &deployment).await.unwrap();
    deployment.state = DeploymentState::Success;
    deployment.url = Some("https://x.example.dev".into());
    assert_eq!(client.ensure_deployment(&repo, &sha, None, &deployment).await.unwrap(), first);
    let deployments = host.deployments(REPO);
    assert_eq!((deployments.len(), deployments[0].state.as_str()), (1, "success"));
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn refusals_say_what_follows_from_them() {
    let (host, client, repo) = host().await;
    host.fail_next(429, 1);
    let error = client.pull_request(&repo, 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited { retry_after: Duration::from_secs(7) });
    host.fail_next(502, 1);
    assert_eq!(client.pull_request(&repo, 1).await.unwrap_err().kind, ErrorKind::Unavailable);
    let wrong = stagely_forge::github::Auth::Token(Secret::new("ghs_wrong"));
    let stranger = GitHub::new(&host.api_url(), "http://127.0.0.1", wrong, Arc::new(SystemClock)).unwrap();
    let error = stranger.pull_request(&repo, 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(!format!("{error:?}").contains("ghs_wrong"));
}

#[tokio::test]
async fn git_itself_clones_with_the_access_it_is_given_and_not_without() {
    let (host, client, repo) = host().await;
    let sha = host.commit(REPO, HOSTILE, Some("main"), &[("new.txt", b"x")], "Change").await;
    let access = client.clone_access(&repo).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let fetch = async |token: &str| {
        let url = access.url.replace("http://", &format!("http://{}:{token}@", access.username));
        let git = |arguments: Vec<String>| {
            let mut command = tokio::process::Command::new("git");
            command.arg("-C").arg(directory.path()).args(arguments).env("GIT_TERMINAL_PROMPT", "0");
            command.stderr(std::process::Stdio::null());
            async move { command.status().await.unwrap().success() }
        };
        git(vec!["init".into(), "-q".into()]).await;
        git(vec!["fetch".into(), "-q".into(), "--depth=1".into(), url, sha.clone()]).await
    };
    assert!(!fetch("wrong").await);
    assert!(fetch(access.token.reveal()).await);
}
