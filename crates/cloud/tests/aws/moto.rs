//! The double: moto's server, which others wrote. A process of it answers one request at a time, so there is one for each of
//! the tests that run at a time; each test has an account of its own at one of them.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

static SERVERS: [OnceCell<(Child, String)>; 2] = [const { OnceCell::const_new() }; 2];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Where the next one in turn listens.
pub async fn url() -> &'static str {
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) % SERVERS.len();
    let (_, url) = SERVERS[turn].get_or_init(start).await;
    url
}

#[expect(clippy::disallowed_methods, reason = "where it is installed is told by the environment")]
async fn start() -> (Child, String) {
    let program = std::env::var("STAGELY_TEST_MOTO").expect("STAGELY_TEST_MOTO is the path of moto_server");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // The shell's input ends with this process, however that ends, and then the server does too.
    let child = Command::new("sh")
        .args(["-c", "\"$0\" -H 127.0.0.1 -p \"$1\" <&- & read _; kill $!", &program, &port.to_string()])
        .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "true")
        .env("MOTO_ENABLE_AMI_VALIDATION", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
    for _ in 0..300 {
        if client.get(format!("{url}/moto-api/")).send().await.is_ok() {
            return (child, url);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{program} does not listen");
}
