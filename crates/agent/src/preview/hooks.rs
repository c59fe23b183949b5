//! Hooks: commands inside a service's container, run by that container's own shell.

use std::time::Duration;

use stagely_domain::failure::Code;
use stagely_proto::agent::Hook;
use tokio_util::sync::CancellationToken;

use crate::compose::Compose;
use crate::fault::{self, Fault, Stop};
use crate::machine::Machine;

const DEADLINE: Duration = Duration::from_secs(600);

/// Runs `hooks` one after the other; the first that fails ends it. Output goes to `hook/<n>`, counted from 0.
pub async fn run(
    machine: &Machine,
    compose: &Compose,
    hooks: &[Hook],
    phase: &'static str,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    for (at, hook) in hooks.iter().enumerate() {
        let mut log = machine.logs.writer(&format!("hook/{at}"));
        log.line(&format!("$ {}", hook.command));
        if hook.service.starts_with('-') {
            return Err(failed(phase, hook, "is not a service's name").into());
        }
        let deadline = match hook.timeout_secs {
            0 => DEADLINE,
            secs => Duration::from_secs(u64::from(secs)),
        };
        // The command is one argument, for the container's shell; nothing on the machine interprets it.
        let args = ["exec", "-T", &hook.service, "sh", "-c", &hook.command];
        let ended = compose.command(&args, deadline).log(&mut log, cancel).await.map_err(|error| {
            match fault::of_process(error, Code::HookFailed, phase) {
                Stop::Failed(fault) => Stop::Failed(Box::new(fault.of_service(&hook.service))),
                Stop::Cancelled => Stop::Cancelled,
            }
        })?;
        if ended.code != 0 {
            let what = format!("ended with exit code {}", ended.code);
            return Err(failed(phase, hook, &what).exit(ended.code).tail(ended.tail).into());
        }
    }
    Ok(())
}

fn failed(phase: &'static str, hook: &Hook, what: &str) -> Fault {
    let message = format!("the {phase} hook `{}` of {} {what}", hook.command, hook.service);
    Fault::new(Code::HookFailed, phase, message).of_service(&hook.service)
}
