//! Hooks: commands inside a service's container, run by that container's own shell.

use std::time::Duration;

use stagely_domain::failure::Code;
use stagely_proto::agent::Hook;
use tokio_util::sync::CancellationToken;

use crate::docker::{self, Exec};
use crate::fault::{Fault, Stop};
use crate::machine::Machine;
use crate::process::Tail;

const DEADLINE: Duration = Duration::from_secs(600);

/// Runs `hooks` one after the other; the first that fails ends it. Output goes to `hook/<n>`, counted from 0.
pub async fn run(
    machine: &Machine,
    project: &str,
    hooks: &[Hook],
    phase: &'static str,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    for (at, hook) in hooks.iter().enumerate() {
        let mut log = machine.logs.writer(&format!("hook/{at}"));
        log.line(&format!("$ {}", hook.command));
        let deadline = match hook.timeout_secs {
            0 => DEADLINE,
            secs => Duration::from_secs(u64::from(secs)),
        };
        let unwell = |error: docker::Error| Fault {
            code: Code::Internal,
            ..failed(phase, hook, &format!("could not be run: {error}"))
        };
        let containers = machine.engine.list_containers(project).await.map_err(unwell)?;
        let Some(container) = containers.iter().find(|one| one.service() == hook.service && one.is_running()) else {
            return Err(failed(phase, hook, "found no running container").into());
        };
        // The command is one argument, for the container's shell; nothing on the machine interprets it.
        let exec = Exec::new(&machine.engine, &container.id, &["sh", "-c", &hook.command]).await.map_err(unwell)?;
        let mut tail = Tail::default();
        let running = exec.run(|bytes| {
            log.write(bytes);
            tail.push(bytes);
        });
        let ended = tokio::select! {
            () = cancel.cancelled() => None,
            ended = tokio::time::timeout(deadline, running) => Some(ended),
        };
        let code = match ended {
            Some(Ok(ended)) => ended.map_err(unwell)?,
            Some(Err(_)) => {
                exec.kill().await;
                let what = format!("took longer than {} s", deadline.as_secs());
                return Err(Fault { code: Code::TimedOut, ..failed(phase, hook, &what) }.tail(tail.text()).into());
            }
            None => {
                exec.kill().await;
                return Err(Stop::Cancelled);
            }
        };
        if code != 0 {
            let what = format!("ended with exit code {code}");
            return Err(failed(phase, hook, &what).exit(code).tail(tail.text()).into());
        }
    }
    Ok(())
}

fn failed(phase: &'static str, hook: &Hook, what: &str) -> Fault {
    let message = format!("the {phase} hook `{}` of {} {what}", hook.command, hook.service);
    Fault::new(Code::HookFailed, phase, message).of_service(&hook.service)
}
