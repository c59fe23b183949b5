//! Machines as the provider shows them.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, Instance};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use stagely_domain::id::{InstallationId, MachineId};

use crate::aws::actions::{DESCRIBE_INSTANCES, DESCRIBE_VOLUMES, GET_CONSOLE_OUTPUT, TERMINATE_INSTANCES};
use crate::aws::tags::{self, Tags};
use crate::aws::{Aws, refusal::Refused};
use crate::vm::count;
use crate::{CloudError, DeleteProgress, ErrorKind, Listing, ProviderId, Result, Vm, VmState};

const DELETE: &str = "delete a machine";
const ROUTE: &str = "find the region of an id";
const PER_PAGE: i32 = 1000;
/// How much of a console is worth showing.
const CONSOLE_TAIL: usize = 8 * 1024;

impl Aws {
    /// What an id is called in this region. One that names a region is from a time when the account had several; that of
    /// another region is an error, since what it names may be there, and cost.
    pub(super) fn here<'i>(&self, id: &'i str) -> Result<&'i str> {
        match id.split_once('/') {
            None => Ok(id),
            Some((region, rest)) if region == self.config.region => Ok(rest),
            Some((region, _)) => {
                let message = format!("{id} is in {region}, which is no region of the account any more: add it again");
                Err(CloudError::new(ErrorKind::Invalid, ROUTE, message))
            }
        }
    }

    /// Every instance that fits, ended ones too, which are shown for about an hour.
    pub(super) async fn instances(&self, doing: &'static str, filters: Vec<Filter>) -> Result<Vec<Instance>> {
        let request = self.client.ec2.describe_instances().set_filters(Some(filters)).max_results(PER_PAGE);
        let stream = request.into_paginator().stop_on_duplicate_token(false).send();
        let pages = self.client.pages(doing, &DESCRIBE_INSTANCES, stream).await?;
        let reservations = pages.into_iter().flat_map(|page| page.reservations.unwrap_or_default());
        Ok(reservations.flat_map(|one| one.instances.unwrap_or_default()).collect())
    }

    /// One instance by its id; `None` when it is not found, which a young one may not be either.
    pub(super) async fn instance(&self, doing: &'static str, id: &str) -> Result<Option<Instance>> {
        let request = self.client.ec2.describe_instances().instance_ids(id).send();
        match self.client.send(doing, &DESCRIBE_INSTANCES, request).await {
            Ok(answer) => {
                let instances = answer.reservations().iter().flat_map(|one| one.instances());
                Ok(instances.into_iter().find(|instance| instance.instance_id() == Some(id)).cloned())
            }
            Err(Refused { error, .. }) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    pub(super) async fn find_machine(&self, machine: MachineId) -> Result<Vec<Vm>> {
        let doing = "find a machine";
        let mut found = self.instances(doing, vec![tags::filter(tags::MACHINE, machine)]).await?;
        let mut vms = Vec::new();
        for (id, tags) in self.unseen(&found, |tags| tags.machine == machine) {
            match self.instance(doing, &id).await? {
                Some(instance) => found.push(instance),
                None => vms.push(unseen_vm(id, &tags)),
            }
        }
        for instance in found.iter().filter(|instance| tags::machine(instance.tags()) == Some(machine)) {
            if state(instance) != "terminated" {
                vms.extend(vm(instance, &owned(doing, instance)?));
            }
        }
        if vms.is_empty() {
            self.none_by_name(doing, machine).await?;
        }
        Ok(vms)
    }

    /// One that lost the tag by which it is looked for still has its name. It costs, so it is not called gone.
    async fn none_by_name(&self, doing: &'static str, machine: MachineId) -> Result<()> {
        let named = self.instances(doing, vec![tags::filter(tags::NAME, machine.label())]).await?;
        let lost =
            |instance: &&Instance| state(instance) != "terminated" && tags::machine(instance.tags()) != Some(machine);
        named.iter().find(lost).map_or(Ok(()), |instance| Err(damaged(doing, instance)))
    }

    pub(super) async fn list_machines(&self, installation: InstallationId) -> Result<Listing> {
        let found = self.instances("list machines", vec![tags::filter(tags::INSTALLATION, installation)]).await?;
        let mut listing = Listing { vms: Vec::new(), complete: true };
        for (id, tags) in self.unseen(&found, |tags| tags.installation == installation) {
            listing.vms.push(unseen_vm(id, &tags));
        }
        for instance in found.iter().filter(|instance| state(instance) != "terminated") {
            match Tags::read(instance.tags()) {
                Some(tags) => {
                    listing.vms.extend(vm(instance, &tags).filter(|vm| vm.installation == installation));
                }
                None => {
                    let id = instance.instance_id().unwrap_or_default();
                    tracing::error!(
                        "instance {id} carries our tag, and others were changed: put them back as they were, or end it \
                         yourself; it is not listed"
                    );
                    listing.complete = false;
                }
            }
        }
        Ok(listing)
    }

    /// How many machines each installation has in the region.
    pub(super) async fn count_installations(&self) -> Result<BTreeMap<InstallationId, usize>> {
        let ours = Filter::builder().name("tag-key").values(tags::INSTALLATION).build();
        let found = self.instances("list installations", vec![ours]).await?;
        let living = found.iter().filter(|instance| state(instance) != "terminated");
        let named =
            |instance: &Instance| Some((tags::installation(instance.tags())?, instance.instance_id()?.to_owned()));
        Ok(count(living.filter_map(named)))
    }

    /// What was placed a short while ago, fits, and is not among those that were found.
    fn unseen(&self, found: &[Instance], fits: impl Fn(&Tags) -> bool) -> Vec<(String, Tags)> {
        for instance in found {
            match (instance.instance_id(), state(instance)) {
                (Some(id), "terminated") => self.memory.ended(id),
                (Some(id), _) => self.memory.seen(id),
                (None, _) => {}
            }
        }
        let mut young = self.memory.young(fits);
        young.retain(|(id, _)| !found.iter().any(|instance| instance.instance_id() == Some(id)));
        young
    }

    /// Ends a machine; its disk and its interface go with it.
    pub(super) async fn remove(&self, id: &str) -> Result<DeleteProgress> {
        if !is_instance(id) {
            return Ok(DeleteProgress::Gone);
        }
        match self.instance(DELETE, id).await? {
            Some(instance) if state(&instance) == "terminated" => {
                self.memory.ended(id);
                return Ok(DeleteProgress::Gone);
            }
            Some(instance) => {
                self.memory.seen(id);
                owned(DELETE, &instance)?;
                if state(&instance) == "shutting-down" {
                    return Ok(DeleteProgress::InProgress);
                }
                if tags::is_held(instance.tags()) || self.has_held_disk(id).await? {
                    return Ok(DeleteProgress::Held);
                }
            }
            // It may only not be known everywhere yet.
            None => {}
        }
        // Without waiting for its system, which may hang.
        let request = self.client.ec2.terminate_instances().instance_ids(id).skip_os_shutdown(true).send();
        match self.client.send(DELETE, &TERMINATE_INSTANCES, request).await {
            Ok(_) => Ok(DeleteProgress::InProgress),
            Err(Refused { error, .. }) => match error.kind {
                ErrorKind::Conflict => Ok(DeleteProgress::InProgress),
                ErrorKind::NotFound => self.is_gone(id).await,
                _ => Err(error),
            },
        }
    }

    /// Its disks go with it.
    async fn has_held_disk(&self, id: &str) -> Result<bool> {
        let attached = Filter::builder().name("attachment.instance-id").values(id).build();
        let held = Filter::builder().name("tag-key").values(tags::HOLD).build();
        let request = self.client.ec2.describe_volumes().filters(attached).filters(held).send();
        let answer = self.client.send(DELETE, &DESCRIBE_VOLUMES, request).await?;
        Ok(answer.volumes().iter().any(|volume| tags::is_held(volume.tags())))
    }

    /// What is not found may be young, and run: only two looks at lists that do not show it, some time apart, are
    /// believed.
    async fn is_gone(&self, id: &str) -> Result<DeleteProgress> {
        let filter = Filter::builder().name("instance-id").values(id).build();
        let found = self.instances(DELETE, vec![filter]).await?;
        match found.iter().find(|instance| instance.instance_id() == Some(id)) {
            Some(instance) if state(instance) == "terminated" => {
                self.memory.ended(id);
                Ok(DeleteProgress::Gone)
            }
            Some(_) => {
                self.memory.seen(id);
                Ok(DeleteProgress::InProgress)
            }
            None if self.memory.missed(id) => Ok(DeleteProgress::Gone),
            None => Ok(DeleteProgress::InProgress),
        }
    }

    pub(super) async fn console(&self, id: &str) -> Result<Option<String>> {
        let doing = "read a machine's console";
        if !is_instance(id) {
            return Ok(None);
        }
        let request = self.client.ec2.get_console_output().instance_id(id).send();
        let answer = match self.client.send(doing, &GET_CONSOLE_OUTPUT, request).await {
            Err(Refused { error, .. }) if error.kind == ErrorKind::NotFound => return Ok(None),
            outcome => outcome?,
        };
        let Some(encoded) = answer.output().filter(|output| !output.is_empty()) else { return Ok(None) };
        let garbled = |_| CloudError::new(ErrorKind::Protocol, doing, "a console that cannot be decoded");
        let bytes = STANDARD.decode(encoded.split_ascii_whitespace().collect::<String>()).map_err(garbled)?;
        let tail = &bytes[bytes.len().saturating_sub(CONSOLE_TAIL)..];
        Ok(Some(String::from_utf8_lossy(tail).into_owned()))
    }
}

/// Whether it can be an id of the provider's.
pub(super) fn is_instance(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Its tags; what carries none of ours is not touched.
pub(super) fn owned(doing: &'static str, instance: &Instance) -> Result<Tags> {
    Tags::read(instance.tags()).ok_or_else(|| damaged(doing, instance))
}

fn damaged(doing: &'static str, instance: &Instance) -> CloudError {
    let id = instance.instance_id().unwrap_or_default();
    let message = format!(
        "{id} does not carry our tags: it is somebody else's, or they were changed; put them back as they were, or end \
         it yourself"
    );
    CloudError::new(ErrorKind::Permission, doing, message)
}

pub(super) fn state(instance: &Instance) -> &str {
    instance.state().and_then(|state| state.name()).map_or("", |name| name.as_str())
}

/// `ip:port` of the agent, once it has an address.
pub(super) fn address(instance: &Instance, tags: &Tags) -> Option<String> {
    instance.public_ip_address().filter(|ip| !ip.is_empty()).map(|ip| format!("{ip}:{}", tags.port))
}

/// As the orchestrator sees it; `None` when it has ended.
pub(super) fn vm(instance: &Instance, tags: &Tags) -> Option<Vm> {
    let state = match state(instance) {
        "terminated" => return None,
        "pending" | "" => VmState::Pending,
        "running" | "stopping" => VmState::Running,
        // What bakes stops when it is done; nobody puts it to sleep.
        "stopped" if tags.bakes() => VmState::Stopped,
        "stopped" => VmState::Hibernated,
        "shutting-down" => VmState::Deleting,
        other => VmState::Other(other.to_owned()),
    };
    Some(Vm {
        id: ProviderId(instance.instance_id()?.to_owned()),
        machine: tags.machine,
        installation: tags.installation,
        environment: tags.environment,
        address: address(instance, tags).filter(|_| state != VmState::Hibernated),
        state,
        expires_at: tags.expires_at,
        // The last start, where it was stopped.
        created_at: instance.launch_time().and_then(|time| time_of(time.secs())),
        hold: tags::is_held(instance.tags()),
    })
}

fn unseen_vm(id: String, tags: &Tags) -> Vm {
    Vm {
        id: ProviderId(id),
        machine: tags.machine,
        installation: tags.installation,
        environment: tags.environment,
        state: VmState::Pending,
        address: None,
        expires_at: tags.expires_at,
        created_at: None,
        hold: false,
    }
}

pub(super) fn time_of(secs: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(secs, 0)
}
