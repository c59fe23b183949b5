//! A Postgres of one test, which it may stop and start.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stagely_store::testing::TestDb;
use tokio::net::TcpListener;
use uuid::Uuid;

pub struct Server {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.control(&["-m", "immediate", "stop"]).status();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Server {
    /// Starts one, with the programs of the server that the other tests use.
    pub async fn start() -> Self {
        let db = TestDb::new().await;
        let programs = db.text("SELECT setting FROM pg_config WHERE name = 'BINDIR'").await.into();
        db.drop_database().await;
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("stagely-outages-{}", Uuid::new_v4().simple()));
        let server = Self { programs, directory, port };
        let mut init = as_postgres(&server.programs.join("initdb"));
        succeed(init.args(["-U", "postgres", "-A", "trust", "--no-sync", "-D"]).arg(&server.directory));
        let sockets = server.directory.display();
        let options =
            format!("-p {port} -k {sockets} -c listen_addresses=127.0.0.1 -c max_connections=400 -c fsync=off");
        succeed(server.control(&["-w", "-o", &options, "start"]).arg("-l").arg(server.directory.join("log")));
        server
    }

    pub fn url(&self, name: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?application_name={name}", self.port)
    }

    /// Stops it, `fast` or as a crash would (`immediate`), and starts it again.
    pub fn restart(&self, mode: &str) {
        succeed(self.control(&["-w", "-m", mode, "restart"]).arg("-l").arg(self.directory.join("log")));
    }

    fn control(&self, arguments: &[&str]) -> Command {
        let mut command = as_postgres(&self.programs.join("pg_ctl"));
        command.arg("-D").arg(&self.directory).args(arguments);
        command
    }
}

/// Postgres refuses to run as root. Its output is thrown away, not piped: what it leaves behind would keep the pipe open.
fn as_postgres(program: &Path) -> Command {
    let is_root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
    let mut command = Command::new(if is_root { Path::new("setpriv") } else { program });
    if is_root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).current_dir("/");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn succeed(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
