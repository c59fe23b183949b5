//! Reading and posting with the client.

use stagely_forge::{
    Check, CheckStatus, Conclusion, Deployment, DeploymentState, Entry, EntryKind, ErrorKind, Forge, MAX_FILE_BYTES,
    PullRequestState, Repo,
};

use crate::support::{HOSTILE, REPO, app, clock, host, install_tls};

const MARKER: &str = "<!-- stagely:env_1 -->";

#[tokio::test]
async fn pull_requests_and_files_are_read_as_they_are_now() {
    let (host, client, repo) = host().await;
    let sha = host.commit(REPO, HOSTILE, Some("main"), &[("new.txt", b"x")], "Change").await;
    let number = host.open_pull_request(REPO, HOSTILE, "A <b>title</b>").await;
    host.change(REPO, number, |pull| (pull.draft, pull.labels) = (true, vec!["preview".into(), "a, b".into()]));
    let pull = client.pull_request(&repo, number).await.unwrap().unwrap();
    assert_eq!((pull.branch.as_str(), pull.sha.as_str(), pull.state), (HOSTILE, sha.as_str(), PullRequestState::Open));
    assert_eq!((pull.title.as_str(), pull.author.as_str(), pull.base.as_str()), ("A <b>title</b>", "acme", "main"));
    assert_eq!((pull.from_fork, pull.draft, pull.merged), (false, true, false));
    assert_eq!(
        (pull.head_repo.as_ref(), pull.labels.as_slice()),
        (Some(&repo), ["preview".into(), "a, b".into()].as_slice())
    );
    assert_ne!(pull.base_sha, pull.sha);
    assert_eq!(client.pull_request(&repo, 99).await.unwrap(), None);
    let stranger: Repo = "acme/other".parse().unwrap();
    assert_eq!(client.pull_request(&stranger, 1).await.unwrap_err().kind, ErrorKind::Auth);
    assert_eq!(client.list_open_pull_requests(&stranger).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(client.file_at(&repo, &sha, "a/b c.txt").await.unwrap().unwrap(), b"deep\n");
    assert_eq!(client.file_at(&repo, &sha, "stagely.yaml").await.unwrap(), None);
    assert_eq!(client.changed_paths(&repo, number).await.unwrap(), ["new.txt"]);
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_has_another_id_when_and_only_when_its_content_changed() {
    let (host, client, repo) = host().await;
    let files: [(&str, &[u8]); 3] = [("api/a", b"1"), ("web/src/b", b"1"), ("file", b"1")];
    let before = host.commit(REPO, "dirs", Some("main"), &files, "Before").await;
    let after = host.commit(REPO, "dirs", None, &[("web/src/b", b"2")], "After").await;
    let paths = [".", "./api", "web/src", "web", "file", "web/none/deep"].map(str::to_owned);
    let entries = async |sha: &str, paths: &[String]| client.entries_at(&repo, sha, paths).await.unwrap();
    let (before, after) = (entries(&before, &paths).await, entries(&after, &paths).await);
    let same: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
    assert_eq!(same, [false, true, false, false, true, true]);
    let is_directory = |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| entry.kind == EntryKind::Directory);
    let known: Vec<bool> = before.iter().map(is_directory).collect();
    assert_eq!(known, [true, true, true, true, false, false]);
    assert_eq!(before[4].as_ref().map(|entry| entry.kind), Some(EntryKind::File));
    assert_eq!(entries(&"0".repeat(40), &paths[1..2]).await, [None]);
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let (host, client, repo) = host().await;
    let names: Vec<String> = (0..230).map(|index| format!("f{index:03}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"x".as_slice())).collect();
    host.commit(REPO, "b", Some("main"), &files, "c").await;
    for _ in 0..105 {
        host.open_pull_request(REPO, "b", "t").await;
    }
    assert_eq!(client.changed_paths(&repo, 1).await.unwrap(), names);
    host.close_silently(REPO, 2);
    let mut open: Vec<i64> =
        client.list_open_pull_requests(&repo).await.unwrap().iter().map(|pull| pull.number).collect();
    open.sort_unstable();
    assert_eq!(open, (1..=105).filter(|number| *number != 2).collect::<Vec<_>>());
    for index in 0..100 {
        host.add_comment(REPO, 1, "reviewer", &format!("remark {index}"));
    }
    let ours = client.ensure_comment(&repo, 1, MARKER, None, "one").await.unwrap();
    assert_eq!(client.ensure_comment(&repo, 1, MARKER, None, "two").await.unwrap(), ours, "found on the second page");
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn closing_merging_reopening_and_pushing_show() {
    let (host, client, repo) = host().await;
    let first = host.commit(REPO, "b", Some("main"), &[("f", b"1")], "c").await;
    let number = host.open_pull_request(REPO, "b", "t").await;
    let seen = async || {
        let pull = client.pull_request(&repo, number).await.unwrap().unwrap();
        (pull.state, pull.merged, pull.sha)
    };
    assert_eq!(seen().await, (PullRequestState::Open, false, first));
    let second = host.commit(REPO, "b", None, &[("f", b"2")], "c").await;
    assert_eq!(seen().await, (PullRequestState::Open, false, second.clone()));
    host.close_pull_request(REPO, number).await;
    assert_eq!(seen().await, (PullRequestState::Closed, false, second.clone()));
    host.reopen_pull_request(REPO, number).await;
    assert_eq!(seen().await, (PullRequestState::Open, false, second.clone()));
    host.merge_pull_request(REPO, number).await;
    assert_eq!(seen().await, (PullRequestState::Closed, true, second));
    assert_eq!(client.file_at(&repo, "main", "f").await.unwrap().unwrap(), b"2", "merged in git too");
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_forks_pull_request_is_known_as_one() {
    let (host, client, repo) = host().await;
    host.create_fork(REPO, "mallory/shop").await;
    let sha = host.commit("mallory/shop", "main", None, &[("stagely.yaml", b"version: 2\n")], "c").await;
    let number = host.open_fork_pull_request(REPO, "mallory/shop", "main", "t").await;
    let pull = client.pull_request(&repo, number).await.unwrap().unwrap();
    assert!(pull.from_fork);
    assert_eq!((pull.author.as_str(), pull.sha.as_str()), ("mallory", sha.as_str()));
    assert_eq!(pull.head_repo.unwrap().to_string(), "mallory/shop");
    assert_eq!(client.file_at(&repo, &pull.base_sha, "stagely.yaml").await.unwrap(), None);
    assert_eq!(client.file_at(&repo, &sha, "stagely.yaml").await.unwrap().unwrap(), b"version: 2\n");
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn files_that_are_too_large_are_not_read() {
    let (host, client, repo) = host().await;
    let (fits, too_large) = (vec![b'x'; MAX_FILE_BYTES], vec![b'x'; MAX_FILE_BYTES + 1]);
    let sha = host.commit(REPO, "b", Some("main"), &[("fits", &fits), ("large", &too_large)], "c").await;
    assert_eq!(client.file_at(&repo, &sha, "fits").await.unwrap().unwrap(), fits);
    assert_eq!(client.file_at(&repo, &sha, "large").await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn there_is_one_comment_whatever_is_lost_or_deleted() {
    let (host, client, repo) = host().await;
    let number = host.open_pull_request(REPO, "main", "t").await;
    let first = client.ensure_comment(&repo, number, MARKER, None, "one").await.unwrap();
    // The id was lost: it is found by its marker.
    assert_eq!(client.ensure_comment(&repo, number, MARKER, None, "two").await.unwrap(), first);
    assert_eq!(client.ensure_comment(&repo, number, MARKER, Some(&first), "three").await.unwrap(), first);
    let comments = host.comments(REPO, number);
    assert_eq!((comments.len(), comments[0].body.as_str()), (1, "<!-- stagely:env_1 -->\nthree"));
    host.delete_comment(REPO, comments[0].id);
    let again = client.ensure_comment(&repo, number, MARKER, Some(&first), "four").await.unwrap();
    assert_ne!(again, first);
    assert_eq!(host.comments(REPO, number).len(), 1);
    let endless = "x".repeat(100_000);
    client.ensure_comment(&repo, number, MARKER, Some(&again), &endless).await.unwrap();
    assert!(host.comments(REPO, number)[0].body.chars().count() < 65_536);
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_strangers_comment_with_our_marker_is_not_ours() {
    install_tls();
    let clock = clock();
    let host =
        stagely_forge::testing::GitHost::start_at(0, None, std::sync::Arc::new(clock.clone()), Default::default())
            .await;
    host.create_repo(REPO, &[("f", b"x")]).await;
    let number = host.open_pull_request(REPO, "main", "t").await;
    host.add_comment(REPO, number, "mallory", &format!("{MARKER}\nlook here"));
    let (client, repo) = (app(&host, &clock), REPO.parse().unwrap());
    let ours = client.ensure_comment(&repo, number, MARKER, None, "live").await.unwrap();
    assert_eq!(client.ensure_comment(&repo, number, MARKER, None, "live").await.unwrap(), ours);
    let comments = host.comments(REPO, number);
    let bodies: Vec<&str> = comments.iter().map(|comment| comment.body.as_str()).collect();
    assert_eq!(bodies, [format!("{MARKER}\nlook here"), format!("{MARKER}\nlive")]);
    assert_eq!(host.violations(), Vec::<String>::new());
}

fn check() -> Check {
    Check {
        name: "Stagely preview".into(),
        external_id: "env_1".into(),
        status: CheckStatus::Queued,
        title: "Building".into(),
        summary: "…".into(),
        details_url: Some("https://x.example.dev".into()),
    }
}

#[tokio::test]
async fn a_check_is_found_again_and_moved_on() {
    let (host, client, repo) = host().await;
    let sha = host.commit(REPO, "b", Some("main"), &[("f", b"x")], "c").await;
    let mut check = check();
    let first = client.ensure_check(&repo, &sha, None, &check).await.unwrap();
    let seen = || {
        let checks = host.checks(REPO, &sha);
        assert_eq!(checks.len(), 1);
        checks[0].state.clone()
    };
    assert_eq!(seen(), "queued");
    for (status, wanted) in [
        (CheckStatus::InProgress, "in_progress"),
        (CheckStatus::Completed(Conclusion::Success), "success"),
        (CheckStatus::Completed(Conclusion::Failure), "failure"),
        (CheckStatus::Completed(Conclusion::Cancelled), "cancelled"),
        (CheckStatus::Completed(Conclusion::ActionRequired), "action_required"),
        (CheckStatus::Completed(Conclusion::Neutral), "neutral"),
    ] {
        check.status = status;
        assert_eq!(client.ensure_check(&repo, &sha, None, &check).await.unwrap(), first, "looked for");
        assert_eq!(client.ensure_check(&repo, &sha, Some(&first), &check).await.unwrap(), first, "known");
        assert_eq!(seen(), wanted);
    }
    // Another environment's check of the same commit stays its own.
    check.external_id = "env_2".into();
    assert_ne!(client.ensure_check(&repo, &sha, None, &check).await.unwrap(), first);
    assert_eq!(client.ensure_check(&repo, &sha, Some("1/../../x"), &check).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_deployment_is_found_again_moved_on_and_made_anew() {
    let (host, client, repo) = host().await;
    let sha = host.commit(REPO, "b", Some("main"), &[("f", b"x")], "c").await;
    let mut deployment =
        Deployment { environment: "preview/pr-1".into(), state: DeploymentState::Queued, url: None, log_url: None };
    let first = client.ensure_deployment(&repo, &sha, None, &deployment).await.unwrap();
    for (state, wanted) in [
        (DeploymentState::InProgress, "in_progress"),
        (DeploymentState::Failure, "failure"),
        (DeploymentState::Inactive, "inactive"),
        (DeploymentState::Success, "success"),
    ] {
        deployment.state = state;
        deployment.url = Some("https://x.example.dev".into());
        assert_eq!(client.ensure_deployment(&repo, &sha, None, &deployment).await.unwrap(), first);
        let deployments = host.deployments(REPO);
        assert_eq!((deployments.len(), deployments[0].state.as_str()), (1, wanted));
        assert_eq!(deployments[0].text, "https://x.example.dev");
    }
    host.delete_deployment(REPO, first.parse().unwrap());
    let again = client.ensure_deployment(&repo, &sha, Some(&first), &deployment).await.unwrap();
    assert_ne!(again, first);
    assert_eq!(host.deployments(REPO)[0].state, "success");
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[test]
fn only_owner_and_name_make_a_repository() {
    for good in ["acme/shop", "a-b/c.d_e", "A/1"] {
        assert_eq!(good.parse::<Repo>().unwrap().to_string(), good);
    }
    for bad in
        ["", "acme", "acme/", "/shop", "a/b/c", "../x", "a/..", "a b/c", "a/b?c", "a/b#c", "a/%2e", "ä/b", "a/b\n"]
    {
        assert!(bad.parse::<Repo>().is_err(), "{bad}");
    }
}
