//! Commands inside a running container.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::json;

use super::logs::Frames;
use super::{Engine, Error};

/// A command that was started in a container.
pub struct Exec<'e> {
    engine: &'e Engine,
    id: String,
}

/// `GET /exec/{id}/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    exit_code: Option<i32>,
    /// As the machine counts.
    #[serde(default)]
    pid: i32,
}

impl<'e> Exec<'e> {
    /// Prepares `argv` with the container's own user, directory and environment. It does not run yet.
    ///
    /// # Errors
    /// The engine's; 409 when the container does not run.
    pub async fn new(engine: &'e Engine, container: &str, argv: &[&str]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            id: String,
        }
        let wish = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": argv});
        let created: Created = engine.post(&format!("/containers/{container}/exec"), &wish).await?;
        Ok(Self { engine, id: created.id })
    }

    /// Runs it to its end and answers its exit code. What it prints goes to `see`, piece by piece.
    ///
    /// # Errors
    /// The engine's.
    pub async fn run(&self, mut see: impl FnMut(&[u8])) -> Result<i32, Error> {
        let path = format!("/exec/{}/start", self.id);
        let mut body = self.engine.send(Method::POST, &path, Some(&json!({"Detach": false})), None).await?;
        let mut frames = Frames::default();
        while let Some(frame) = body.frame().await {
            if let Some(bytes) = frame?.data_ref() {
                frames.push(bytes, &mut see);
            }
        }
        self.state().await.map(|state| state.exit_code.unwrap_or(-1))
    }

    /// Ends it with all that it started, if it still runs: nobody waits for it any more. The engine's runtimes give each
    /// command a session of its own.
    pub async fn kill(&self) {
        for _ in 0..20 {
            let Ok(state) = self.state().await else { return };
            if let Some(pid) = Pid::from_raw(state.pid).filter(|_| state.running) {
                // It may end by itself in between.
                let _ = kill_process_group(pid, Signal::KILL);
                return;
            }
            // Between its start and its process the engine says that it runs, and not as what.
            if !state.running {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn state(&self) -> Result<State, Error> {
        self.engine.json(&format!("/exec/{}/json", self.id)).await
    }
}
