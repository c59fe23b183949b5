//! What others wrote about the providers: their clients for Python, and a checker of requests and answers that reads an
//! OpenAPI document. All are set up by `cargo xtask contract`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};

#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn setting(name: &str) -> PathBuf {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask contract`")).into()
}

/// Runs a script of `tests/` to its good end.
pub async fn python(script: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let mut command = Command::new(setting("STAGELY_TEST_PYTHON"));
    command.arg(script).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A checking proxy before a double; it answers with an error of its own whenever a request or an answer is not as the
/// document says. It ends when dropped.
pub struct Prism {
    pub url: String,
    directory: tempfile::TempDir,
    _child: Child,
}

impl Prism {
    /// Checks by this document, which `spec`, a script of `tests/`, makes strict.
    pub async fn start(document: &str, spec: &str, upstream: &str) -> Self {
        let document = setting("STAGELY_SPECS_DIR").join(document);
        assert!(document.is_file(), "{} is not there: no request was checked", document.display());
        let directory = tempfile::tempdir().unwrap();
        let closed = directory.path().join("closed.json");
        python(spec, &[document.to_str().unwrap(), closed.to_str().unwrap()]).await;
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut command = Command::new(setting("STAGELY_TEST_PRISM"));
        command.args(["proxy", "--errors", "--host", "127.0.0.1", "--port", &port.to_string()]);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = command.arg(closed).arg(upstream).stdout(log).kill_on_drop(true).spawn().unwrap();
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), listens).await.expect("prism does not start");
        Self { url: format!("http://127.0.0.1:{port}"), directory, _child: child }
    }

    /// An answer that is wrong can be survived; here it is an error all the same.
    pub fn found_nothing_wrong(&self) {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        let wrong: Vec<&str> = log.lines().filter(|line| line.to_lowercase().contains("violation")).collect();
        assert!(wrong.is_empty() && log.contains("Request received"), "{wrong:#?}");
    }
}
