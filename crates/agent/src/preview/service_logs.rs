//! What the services print, each on its own stream. A container is followed once, whatever the generation, and
//! again from where it ended when it is started again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stagely_domain::clock::{Clock as _, SystemClock};
use tracing::debug;

use crate::docker;
use crate::machine::Machine;

enum Followed {
    Now,
    /// Unix seconds.
    Until(i64),
}

/// Which containers are or were followed, by id. Cheap to clone.
#[derive(Clone, Default)]
pub struct ServiceLogs(Arc<Mutex<HashMap<String, Followed>>>);

impl ServiceLogs {
    /// Follows every container of `project` that is not followed yet.
    pub async fn attach(&self, machine: &Machine, project: &str) {
        if let Ok(containers) = machine.engine.list_containers(project).await {
            self.attach_all(machine, &containers);
        }
    }

    /// Follows those of `containers` that are not followed yet.
    pub fn attach_all(&self, machine: &Machine, containers: &[docker::Container]) {
        for container in containers {
            self.follow(machine, container);
        }
    }

    fn follow(&self, machine: &Machine, container: &docker::Container) {
        let since = match self.map().get(&container.id) {
            None => machine.started,
            Some(Followed::Until(end)) if container.is_running() => *end,
            Some(_) => return,
        };
        self.map().insert(container.id.clone(), Followed::Now);
        let (book, machine, container) = (self.clone(), machine.clone(), container.clone());
        machine.tasks.clone().spawn(async move {
            let mut log = machine.logs.writer(&format!("service/{}", container.service()));
            let (engine, cancel) = (&machine.engine, &machine.cancel);
            let ended = docker::follow(engine, &container, since, &mut log, cancel).await;
            if let Err(error) = ended {
                debug!(%error, "a container's log ended");
            }
            let end = Followed::Until(SystemClock.now().timestamp());
            book.map().insert(container.id, end);
        });
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
