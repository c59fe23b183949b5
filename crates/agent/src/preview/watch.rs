//! Watching over running services: the ingress follows containers that move, new containers' logs are followed,
//! and what changes is reported under the same generation.

use stagely_domain::error_chain::chain;
use stagely_proto::agent::Preview;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{ServiceLogs, listening};
use crate::machine::{Machine, Report};
use crate::targets;

/// Watches until called off.
pub async fn run(
    machine: &Machine,
    service_logs: &ServiceLogs,
    preview: &Preview,
    report: &mut Report,
    cancel: &CancellationToken,
) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(machine.config.timing.watch) => {}
            () = machine.targets.suspected() => {}
        }
        match machine.engine.list_containers(&preview.project_name).await {
            Ok(containers) => {
                let addresses = targets::resolve(&containers, &preview.exposures);
                machine.targets.replace(addresses);
                service_logs.attach_all(machine, &containers);
                report.services(listening::statuses(&containers, &preview.exposures).await);
            }
            Err(error) => warn!(error = %chain(&error), "cannot look at the services"),
        }
    }
}
