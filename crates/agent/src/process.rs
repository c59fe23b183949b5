//! Running other programs: by argv, in a process group of their own, with a deadline, cancellable, with their
//! output in a log stream. No shell is involved anywhere.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command as TokioCommand};
use tokio_util::sync::CancellationToken;

use crate::logs::Writer;

/// How long a cancelled program may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// How many lines a failure shows.
pub const TAIL_LINES: usize = 30;
const LONGEST_LINE: usize = 2_000;
/// The most output that is kept when it is asked for.
const LARGEST_OUTPUT: usize = 4 * 1024 * 1024;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run. The environment is empty but for `PATH`, `HOME` and what is given.
pub struct Command {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: Option<PathBuf>,
    deadline: Duration,
}

/// How it ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; 128 + n for signal n.
    pub code: i32,
    /// The last lines of its output.
    pub tail: String,
    /// Its standard output, where that was asked for.
    pub stdout: String,
}

/// Why there is no exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started.
    #[error("start {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was called off.
    #[error("the program was called off")]
    Cancelled,
    /// It took too long.
    #[error("{program} took longer than {} s", .deadline.as_secs())]
    TimedOut {
        /// Its name.
        program: String,
        /// How long it was given.
        deadline: Duration,
        /// The last lines of its output.
        tail: String,
    },
}

impl Command {
    /// Runs `program` with `args`, for at most ten minutes unless told otherwise.
    pub fn new<A: Into<String>>(program: impl Into<PathBuf>, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            deadline: Duration::from_secs(600),
        }
    }

    /// Adds to the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// Gives it so long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it; all of its output goes to `log`.
    ///
    /// # Errors
    /// If it cannot be started, is called off or takes too long.
    pub async fn log(self, log: &mut Writer, cancel: &CancellationToken) -> Result<Finished, Error> {
        self.run(cancel, |bytes, _| log.write(bytes), false).await
    }

    /// Runs it; all of its output goes to `see`, piece by piece.
    ///
    /// # Errors
    /// If it cannot be started, is called off or takes too long.
    pub async fn watch(self, cancel: &CancellationToken, mut see: impl FnMut(&[u8])) -> Result<Finished, Error> {
        self.run(cancel, |bytes, _| see(bytes), false).await
    }

    /// Runs it and keeps its standard output (at most 4 MiB). The tail is of its standard error.
    ///
    /// # Errors
    /// If it cannot be started, is called off or takes too long.
    pub async fn capture(self, cancel: &CancellationToken) -> Result<Finished, Error> {
        self.run(cancel, |_, _| (), true).await
    }

    async fn run(
        self,
        cancel: &CancellationToken,
        mut see: impl FnMut(&[u8], Source),
        capture: bool,
    ) -> Result<Finished, Error> {
        let program = self.program.display().to_string();
        let mut command = TokioCommand::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let mut child = command.spawn().map_err(|source| Error::Start { program: program.clone(), source })?;
        let group = Group::of(&child);
        let mut tail = Tail::default();
        let mut kept = Vec::new();
        let mut observe = |bytes: &[u8], source: Source| {
            see(bytes, source);
            if capture && source == Source::Stdout {
                let room = LARGEST_OUTPUT.saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            } else {
                tail.push(bytes);
            }
        };
        let ended = tokio::select! {
            () = cancel.cancelled() => Err(true),
            ended = tokio::time::timeout(self.deadline, follow(&mut child, &mut observe)) => ended.map_err(|_| false),
        };
        match ended {
            Ok(status) => {
                group.done();
                let status = status.map_err(|source| Error::Start { program, source })?;
                Ok(Finished {
                    code: exit_code(status),
                    tail: tail.text(),
                    stdout: String::from_utf8_lossy(&kept).into_owned(),
                })
            }
            Err(cancelled) => {
                group.end(&mut child).await;
                if cancelled {
                    return Err(Error::Cancelled);
                }
                Err(Error::TimedOut { program, deadline: self.deadline, tail: tail.text() })
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Stdout,
    Stderr,
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reads both outputs to their ends, then waits for the exit. A grandchild that keeps the pipes open after the
/// program's exit is not waited for longer than a moment.
async fn follow(
    child: &mut Child,
    observe: &mut impl FnMut(&[u8], Source),
) -> std::io::Result<std::process::ExitStatus> {
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut out_bytes, mut err_bytes) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut status = None;
    let mut linger = Duration::from_secs(3600 * 24);
    while out.is_some() || err.is_some() {
        tokio::select! {
            count = read(&mut out, &mut out_bytes) => match count {
                0 => out = None,
                count => observe(&out_bytes[..count], Source::Stdout),
            },
            count = read(&mut err, &mut err_bytes) => match count {
                0 => err = None,
                count => observe(&err_bytes[..count], Source::Stderr),
            },
            ended = child.wait(), if status.is_none() => {
                status = Some(ended?);
                linger = Duration::from_millis(500);
            }
            () = tokio::time::sleep(linger), if status.is_some() => break,
        }
    }
    match status {
        Some(status) => Ok(status),
        None => child.wait().await,
    }
}

/// Reads a piece; an error counts as the end. Waits for ever once the end was reached.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, bytes: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(bytes).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// The program's process group, killed when it goes out of scope before the program's end.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    fn done(mut self) {
        self.0 = None;
    }

    async fn end(self, child: &mut Child) {
        if let Some(pid) = self.0 {
            // No such group: everybody is gone already.
            let _ = kill_process_group(pid, Signal::TERM);
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The last lines of a text that comes in pieces.
#[derive(Default)]
pub struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.close();
            } else if self.open.len() < LONGEST_LINE {
                self.open.push(*byte);
            }
        }
    }

    /// The last lines.
    #[must_use]
    pub fn text(mut self) -> String {
        self.close();
        self.lines.make_contiguous().join("\n")
    }

    fn close(&mut self) {
        let line = String::from_utf8_lossy(&self.open).trim_end().to_owned();
        self.open.clear();
        if !line.is_empty() {
            self.lines.push_back(line);
            if self.lines.len() > TAIL_LINES {
                self.lines.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::{Command, Error};

    #[tokio::test]
    async fn a_program_is_run_without_a_shell_and_its_end_is_told() {
        let cancel = CancellationToken::new();
        let echo = Command::new("echo", ["$(id)", "; true"]);
        assert_eq!(echo.capture(&cancel).await.unwrap().stdout, "$(id) ; true\n");
        let script = "echo to-out; echo to-err >&2; exit 3";
        let ended = Command::new("sh", ["-c", script]).capture(&cancel).await.unwrap();
        assert_eq!((ended.code, ended.stdout.as_str(), ended.tail.as_str()), (3, "to-out\n", "to-err"));
        assert!(matches!(Command::new("/nonexistent", [""; 0]).capture(&cancel).await, Err(Error::Start { .. })));
    }

    #[tokio::test]
    async fn a_program_called_off_takes_its_children_along() {
        let cancel = CancellationToken::new();
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", pid_file.display());
        let run = Command::new("sh", ["-c", script.as_str()]).capture(&cancel);
        let watch = async {
            let pid: i32 = loop {
                match std::fs::read_to_string(&pid_file) {
                    Ok(text) if text.ends_with('\n') => break text.trim().parse().unwrap(),
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            cancel.cancel();
            pid
        };
        let (ended, pid) =
            tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(run, watch) }).await.unwrap();
        assert!(matches!(ended, Err(Error::Cancelled)));
        let gone = async {
            // A killed child waits for init to collect it: a zombie is gone enough.
            while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_ended() {
        let ended =
            Command::new("sleep", ["300"]).deadline(Duration::from_millis(50)).capture(&CancellationToken::new()).await;
        assert!(matches!(ended, Err(Error::TimedOut { .. })));
    }
}
