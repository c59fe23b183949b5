//! One git host for the whole program, on a thread of its own, with one repository and a pull request per stack.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use stagely_forge::testing::GitHost;
use tokio_util::sync::CancellationToken;

pub const REPO: &str = "acme/shop";

const COMPOSE: &[u8] = b"services:\n  web: {build: ./web, ports: ['80:3000']}\n  db: {image: postgres}\n";

static HOST: OnceLock<GitHost> = OnceLock::new();
static CHANGES: AtomicUsize = AtomicUsize::new(0);

/// The host.
pub fn host() -> &'static GitHost {
    HOST.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            stagely_runtime::install_crypto();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let host = GitHost::start(0, None, CancellationToken::new()).await;
                let files: [(&str, &[u8]); 2] =
                    [("docker-compose.yml", COMPOSE), ("web/Dockerfile", b"FROM scratch\n")];
                host.create_repo(REPO, &files).await;
                sender.send(host).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().unwrap()
    })
}

/// A new pull request: its branch, which nobody else uses, and its number.
pub async fn pull_request() -> (String, i64) {
    let branch = format!("change-{}", CHANGES.fetch_add(1, Ordering::Relaxed));
    push(&branch).await;
    let number = host().open_pull_request(REPO, &branch, "Change the page").await;
    (branch, number)
}

/// Another commit on a branch.
pub async fn push(branch: &str) {
    let text = format!("{branch} {}\n", CHANGES.fetch_add(1, Ordering::Relaxed));
    commit(branch, &[("web/page.html", text.as_bytes())]).await;
}

/// A commit of these files.
pub async fn commit(branch: &str, files: &[(&str, &[u8])]) {
    host().commit(REPO, branch, Some("main"), files, "Change the page").await;
}
