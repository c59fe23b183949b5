//! The wish and the work on it. The newest generation wins: it calls off the work on an older one and waits for
//! that to end before it starts. The same generation again changes nothing, an older one is ignored.

use stagely_proto::agent::Desired;
use stagely_proto::agent::desired::Spec;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::builder::Builds;
use crate::machine::Machine;
use crate::preview::{self, ServiceLogs};

/// Takes wishes until `cancel`, then calls off all work and waits for its end.
pub async fn run(machine: Machine, mut wishes: mpsc::Receiver<Desired>, cancel: CancellationToken) {
    let service_logs = ServiceLogs::default();
    let builds = Builds::new(machine.clone());
    let mut newest = 0;
    let mut work: Option<(CancellationToken, JoinHandle<()>)> = None;
    loop {
        let wish = tokio::select! {
            () = cancel.cancelled() => break,
            wish = wishes.recv() => match wish {
                Some(wish) => wish,
                None => break,
            },
        };
        if wish.generation <= newest {
            // The hub repeats itself because it does not know how far we are.
            machine.outbox.repeat();
            continue;
        }
        let generation = wish.generation;
        newest = generation;
        info!("working towards generation {generation}");
        match wish.spec {
            Some(Spec::Preview(preview)) => {
                call_off(work.take()).await;
                let token = cancel.child_token();
                let (machine, service_logs, stop) = (machine.clone(), service_logs.clone(), token.clone());
                let task = machine.tasks.clone().spawn(async move {
                    preview::run(&machine, &service_logs, generation, &preview, &stop).await;
                });
                work = Some((token, task));
            }
            Some(Spec::Builder(wish)) => builds.apply(generation, wish),
            None => warn!("generation {generation} wishes for something this agent does not know"),
        }
    }
    call_off(work.take()).await;
}

async fn call_off(work: Option<(CancellationToken, JoinHandle<()>)>) {
    if let Some((token, task)) = work {
        token.cancel();
        // A panic in the work was logged; there is nothing left to wait for.
        let _ = task.await;
    }
}
