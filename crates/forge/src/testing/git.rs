//! Real git: bare repositories, written by `git fast-import`, served by `git http-backend`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{GitHost, access};

/// Who commits, whatever the machine's own git is set to.
const IDENTITY: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "Octo Cat"),
    ("GIT_AUTHOR_EMAIL", "octo@example.com"),
    ("GIT_COMMITTER_NAME", "Octo Cat"),
    ("GIT_COMMITTER_EMAIL", "octo@example.com"),
];

fn directory(root: &Path, repo: &str) -> PathBuf {
    root.join(format!("{repo}.git"))
}

/// Runs git and returns what it printed, or `None` when it failed.
async fn git(directory: &Path, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .envs(IDENTITY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git is installed");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A git that refuses at once closes its input; its status tells.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("git ends");
    output.status.success().then_some(output.stdout)
}

pub(super) async fn init(root: &Path, repo: &str) {
    let path = directory(root, repo);
    std::fs::create_dir_all(&path).expect("make a repository's directory");
    git(&path, &["init", "-q", "--bare", "-b", "main"], b"").await.expect("git init");
    configure(&path).await;
}

/// What GitHub lets clients fetch: any commit by its name, without blobs if they like.
async fn configure(path: &Path) {
    for (key, value) in [("uploadpack.allowAnySHA1InWant", "true"), ("uploadpack.allowFilter", "true")] {
        git(path, &["config", key, value], b"").await.expect("git config");
    }
}

pub(super) async fn fork(root: &Path, repo: &str, fork: &str) {
    let (from, to) = (directory(root, repo), directory(root, fork));
    let paths = (from.to_str().expect("a path in UTF-8"), to.to_str().expect("a path in UTF-8"));
    git(root, &["clone", "-q", "--bare", paths.0, paths.1], b"").await.expect("git clone");
    configure(&to).await;
}

/// Keeps a pull request's head in the repository that it is for, as GitHub does: `refs/pull/<number>/head`.
pub(super) async fn pin(root: &Path, repo: &str, number: i64, head_repo: &str, sha: &str) {
    let head = directory(root, head_repo);
    let wanted = format!("+{sha}:refs/pull/{number}/head");
    let arguments = ["fetch", "-q", "--no-tags", head.to_str().expect("a path in UTF-8"), &wanted];
    git(&directory(root, repo), &arguments, b"").await.expect("git fetch");
}

/// Merges a commit into a branch; `None` when they conflict.
pub(super) async fn merge(root: &Path, repo: &str, base: &str, sha: &str) -> Option<()> {
    let path = directory(root, repo);
    let onto = head(root, repo, base).await;
    let tree = git(&path, &["merge-tree", "--write-tree", &onto, sha], b"").await?;
    let tree = String::from_utf8_lossy(&tree).trim().to_owned();
    let merged = git(&path, &["commit-tree", &tree, "-p", &onto, "-p", sha, "-m", "Merge"], b"").await?;
    let merged = String::from_utf8_lossy(&merged).trim().to_owned();
    git(&path, &["update-ref", &format!("refs/heads/{base}"), &merged], b"").await.map(|_| ())
}

pub(super) async fn commit(
    root: &Path,
    repo: &str,
    branch: &str,
    from: Option<&str>,
    files: &[(&str, &[u8])],
    message: &str,
) -> String {
    let mut changes = Vec::new();
    for (name, content) in files {
        changes.extend_from_slice(format!("M 100644 inline {name}\ndata {}\n", content.len()).as_bytes());
        changes.extend_from_slice(content);
        changes.push(b'\n');
    }
    import(root, repo, branch, from, &changes, message).await
}

/// A commit without a file.
pub(super) async fn delete(root: &Path, repo: &str, branch: &str, from: &str, name: &str) -> String {
    import(root, repo, branch, Some(from), format!("D {name}\n").as_bytes(), "Remove a file").await
}

/// A commit of changes as `git fast-import` takes them.
async fn import(root: &Path, repo: &str, branch: &str, from: Option<&str>, changes: &[u8], message: &str) -> String {
    let path = directory(root, repo);
    let mut stream = format!(
        "commit refs/heads/{branch}\ncommitter Octo Cat <octo@example.com> now\ndata {}\n{message}\n",
        message.len()
    )
    .into_bytes();
    let reference = format!("refs/heads/{branch}");
    let parent = match git(&path, &["rev-parse", "--verify", "-q", &reference], b"").await {
        Some(_) => Some(reference.clone()),
        None => from.map(|from| format!("refs/heads/{from}")),
    };
    if let Some(parent) = parent {
        stream.extend_from_slice(format!("from {parent}^0\n").as_bytes());
    }
    stream.extend_from_slice(changes);
    git(&path, &["fast-import", "--quiet", "--date-format=now"], &stream).await.expect("git fast-import");
    head(root, repo, branch).await
}

pub(super) async fn head(root: &Path, repo: &str, branch: &str) -> String {
    let reference = format!("refs/heads/{branch}");
    let out = git(&directory(root, repo), &["rev-parse", "--verify", &reference], b"").await.expect("a branch");
    String::from_utf8_lossy(&out).trim().to_owned()
}

pub(super) async fn blob(root: &Path, repo: &str, reference: &str, path: &str) -> Option<Vec<u8>> {
    git(&directory(root, repo), &["cat-file", "blob", &format!("{reference}:{path}")], b"").await
}

/// One line of `git ls-tree`.
pub(super) struct Entry {
    pub(super) mode: String,
    pub(super) kind: String,
    pub(super) sha: String,
    pub(super) name: String,
}

/// The tree of a commit.
pub(super) async fn tree_of(root: &Path, repo: &str, sha: &str) -> Option<String> {
    let wanted = format!("{sha}^{{commit}}^{{tree}}");
    let out = git(&directory(root, repo), &["rev-parse", "--verify", "--end-of-options", &wanted], b"").await?;
    String::from_utf8_lossy(&out).lines().last().map(str::to_owned)
}

/// What is directly in a tree.
pub(super) async fn tree(root: &Path, repo: &str, sha: &str) -> Option<Vec<Entry>> {
    let out = git(&directory(root, repo), &["ls-tree", "-z", sha], b"").await?;
    let out = String::from_utf8_lossy(&out);
    let entry = |line: &str| {
        let (facts, name) = line.split_once('\t')?;
        let mut facts = facts.split(' ').map(str::to_owned);
        Some(Entry { mode: facts.next()?, kind: facts.next()?, sha: facts.next()?, name: name.to_owned() })
    };
    Some(out.split('\0').filter_map(entry).collect())
}

pub(super) async fn changed(root: &Path, repo: &str, base: &str, head: &str) -> Vec<String> {
    let range = format!("{base}...{head}");
    let out = git(&directory(root, repo), &["diff", "--name-only", &range], b"").await.unwrap_or_default();
    String::from_utf8_lossy(&out).lines().map(str::to_owned).collect()
}

/// The smart HTTP protocol, by git's own CGI program (git-http-backend(1)).
pub(super) async fn serve(host: &GitHost, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let repo = parts.uri.path().split_once(".git/").map_or("", |(repo, _)| repo.trim_start_matches('/'));
    if !access::may_clone(host, header("authorization"), repo) {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"git\"")], "").into_response();
    }
    let root = host.0.directory.path();
    let input = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("CONTENT_LENGTH", input.len().to_string())
        .env("REMOTE_USER", "x-access-token")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git is installed");
    let mut stdin = child.stdin.take().expect("a pipe");
    let write = async move {
        let _ = stdin.write_all(&input).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output.expect("git http-backend ends").stdout;
    let Some(end) = output.windows(4).position(|window| window == b"\r\n\r\n") else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        response = if name.eq_ignore_ascii_case("status") {
            response.status(value.split(' ').next().and_then(|code| code.parse::<u16>().ok()).unwrap_or(500))
        } else {
            response.header(name, value)
        };
    }
    response.body(Body::from(output[end + 4..].to_vec())).expect("a response of git's")
}
