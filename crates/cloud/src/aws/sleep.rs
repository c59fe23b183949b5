//! Sleeping: the instance is stopped, which ends its bill but for the disk. What was in its memory is gone: to keep that
//! too needs a type and an image that can, and is settled at the create.

use aws_sdk_ec2::types::Instance;
use tokio::time::{Instant, sleep};

use crate::aws::actions::{START_INSTANCES, STOP_INSTANCES};
use crate::aws::machine::{is_instance, owned, state, vm};
use crate::aws::{Aws, refusal::Refused};
use crate::{CloudError, ErrorKind, Result, SleepProgress, Vm};

const SLEEP: &str = "hibernate a machine";
const WAKE: &str = "wake a machine";

impl Aws {
    /// One step towards sleep.
    pub(super) async fn fall_asleep(&self, id: &str) -> Result<SleepProgress> {
        let instance = self.present(SLEEP, id).await?;
        match state(&instance) {
            "stopped" => return Ok(SleepProgress::Asleep),
            // What starts cannot be stopped yet.
            "stopping" | "pending" => return Ok(SleepProgress::InProgress),
            _ => {}
        }
        let request = self.client.ec2.stop_instances().instance_ids(id).send();
        match self.client.send(SLEEP, &STOP_INSTANCES, request).await {
            Err(Refused { error, .. }) if error.kind != ErrorKind::Conflict => Err(error),
            _ => Ok(SleepProgress::InProgress),
        }
    }

    /// Starts it, and waits a while for its new address.
    pub(super) async fn rise(&self, id: &str) -> Result<Vm> {
        let deadline = Instant::now() + self.config.timing.action;
        let mut started = false;
        loop {
            let instance = self.present(WAKE, id).await?;
            let tags = owned(WAKE, &instance)?;
            match (state(&instance), vm(&instance, &tags)) {
                ("running", Some(vm)) if vm.address.is_some() => return Ok(vm),
                ("stopped", _) if !started => {
                    let request = self.client.ec2.start_instances().instance_ids(id).send();
                    self.client.send(WAKE, &START_INSTANCES, request).await?;
                    started = true;
                    continue;
                }
                ("stopping", _) => return Err(conflict("it still falls asleep")),
                _ => {}
            }
            if Instant::now() >= deadline {
                return Err(conflict("it has no address yet"));
            }
            sleep(self.config.timing.poll).await;
        }
    }

    /// The instance, unless it has ended.
    pub(super) async fn present(&self, doing: &'static str, id: &str) -> Result<Instance> {
        let found = if is_instance(id) { self.instance(doing, id).await? } else { None };
        match found {
            Some(instance) if matches!(state(&instance), "terminated" | "shutting-down") => {
                Err(CloudError::new(ErrorKind::NotFound, doing, "it has ended"))
            }
            Some(instance) => {
                owned(doing, &instance)?;
                Ok(instance)
            }
            None if self.memory.is_young(id) => Err(CloudError::new(
                ErrorKind::Conflict,
                doing,
                "it was placed just now, and is not known everywhere yet",
            )),
            None => Err(CloudError::new(ErrorKind::NotFound, doing, "there is none")),
        }
    }
}

fn conflict(message: &str) -> CloudError {
    CloudError::new(ErrorKind::Conflict, WAKE, message)
}
