//! A host, clients of it, and waiting.

use std::sync::Arc;
use std::time::Duration;

use stagely_domain::clock::{ManualClock, SystemClock};
use stagely_domain::secret::Secret;
use stagely_forge::github::Auth;
use stagely_forge::testing::{APP_ID, APP_KEY, CLONE_TOKEN, GitHost, TOKEN};
use stagely_forge::{GitHub, Repo};
use tokio_util::sync::CancellationToken;

pub const REPO: &str = "acme/shop";

/// A legal name of a branch.
pub const HOSTILE: &str = "$(reboot);\"'";

pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A host with one repository, and a client with the token that may do everything, and another for machines.
pub async fn host() -> (GitHost, GitHub, Repo) {
    install_tls();
    let host = GitHost::start(0, None, CancellationToken::new()).await;
    host.create_repo(REPO, &[("README.md", b"hello\n"), ("a/b c.txt", b"deep\n")]).await;
    let client = with_token(&host);
    (host, client, REPO.parse().unwrap())
}

pub fn with_token(host: &GitHost) -> GitHub {
    let auth = token(TOKEN);
    GitHub::new(&host.api_url(), &host.git_url("127.0.0.1"), auth, Arc::new(SystemClock)).unwrap()
}

/// This token, and the one for machines.
pub fn token(token: &str) -> Auth {
    Auth::Token { token: Secret::new(token), clone_token: Secret::new(CLONE_TOKEN) }
}

/// A client that is the App, by this clock.
pub fn app(host: &GitHost, clock: &ManualClock) -> GitHub {
    let auth = Auth::App { app_id: APP_ID.to_owned(), private_key: Secret::new(APP_KEY) };
    GitHub::new(&host.api_url(), &host.git_url("127.0.0.1"), auth, Arc::new(clock.clone())).unwrap()
}

pub fn clock() -> ManualClock {
    ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap())
}

/// Asks again and again until it is so.
pub async fn wait_for<F: Future<Output = bool>>(what: &str, limit: Duration, is_so: impl Fn() -> F) {
    let poll = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, poll).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"));
}
