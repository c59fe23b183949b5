//! QEMU's machine protocol: one JSON object a line over a Unix socket.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

use crate::{CloudError, ErrorKind, Result};

const ANSWER: Duration = Duration::from_secs(10);

/// A connection past the handshake.
pub(super) struct Qmp {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Qmp {
    pub(super) async fn connect(socket: &Path) -> Result<Self> {
        let stream = timeout(ANSWER, UnixStream::connect(socket))
            .await
            .map_err(|_| slow())?
            .map_err(|error| CloudError::io("connect to QEMU", &error))?;
        let (reader, writer) = stream.into_split();
        let mut qmp = Self { reader: BufReader::new(reader), writer };
        qmp.line().await?;
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returned.
    pub(super) async fn execute(&mut self, command: &'static str, arguments: Value) -> Result<Value> {
        let mut request = serde_json::to_vec(&json!({"execute": command, "arguments": arguments}))
            .map_err(|error| CloudError::new(ErrorKind::Protocol, command, error.to_string()))?;
        request.push(b'\n');
        self.writer.write_all(&request).await.map_err(|error| CloudError::io(command, &error))?;
        loop {
            // Events come between a command and its answer.
            let mut answer = self.line().await?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(CloudError::new(ErrorKind::Conflict, command, error["desc"].as_str().unwrap_or("refused")));
            }
        }
    }

    /// Stops the machine and writes its memory to `file`.
    pub(super) async fn save(&mut self, file: &Path, deadline: Duration) -> Result<()> {
        self.execute("stop", json!({})).await?;
        // The default limit is made for networks; this is a disk.
        self.execute("migrate-set-parameters", json!({"max-bandwidth": 1u64 << 40})).await?;
        self.execute("migrate", json!({"uri": format!("exec:cat > {}", quoted(file))})).await?;
        let until = Instant::now() + deadline;
        loop {
            let status = self.execute("query-migrate", json!({})).await?;
            match status["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let message = status["error-desc"].as_str().unwrap_or("QEMU gives no reason").to_owned();
                    return Err(CloudError::new(ErrorKind::Unavailable, "save a machine's memory", message));
                }
                _ if Instant::now() > until => return Err(slow()),
                _ => sleep(Duration::from_millis(25)).await,
            }
        }
    }

    /// Lets a machine run whose saving or restoring was not brought to its end, because whoever did it was killed.
    pub(super) async fn resume(&mut self, deadline: Duration) -> Result<()> {
        // Of no effect when nothing is being saved.
        self.execute("migrate_cancel", json!({})).await?;
        let until = Instant::now() + deadline;
        while matches!(
            self.execute("query-migrate", json!({})).await?["status"].as_str(),
            Some("setup" | "active" | "device" | "cancelling")
        ) {
            if Instant::now() > until {
                return Err(slow());
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.wait_running(deadline).await
    }

    /// Waits until a restored machine runs.
    pub(super) async fn wait_running(&mut self, deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        loop {
            let status = self.execute("query-status", json!({})).await?;
            match status["status"].as_str() {
                Some("running") => return Ok(()),
                // Saved after `stop`, so it comes back paused.
                Some("paused" | "postmigrate" | "prelaunch") => {
                    self.execute("cont", json!({})).await?;
                }
                _ if Instant::now() > until => return Err(slow()),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = timeout(ANSWER, self.reader.read_line(&mut line)).await.map_err(|_| slow())?;
        if read.map_err(|error| CloudError::io("read from QEMU", &error))? == 0 {
            return Err(CloudError::new(ErrorKind::Unavailable, "read from QEMU", "it has ended").ambiguous());
        }
        serde_json::from_str(&line)
            .map_err(|error| CloudError::new(ErrorKind::Protocol, "read from QEMU", error.to_string()))
    }
}

/// A path for the shell that QEMU's `exec:` runs. Paths are made by us and by the operator's configuration.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn slow() -> CloudError {
    CloudError::new(ErrorKind::Timeout, "talk to QEMU", "no answer in time").ambiguous()
}
