//! The simulated cloud as callers reach it.

use async_trait::async_trait;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};

use crate::testing::check;
use crate::testing::sim::{Inside, Record, SimCloud};
use crate::{
    Capabilities, CaptureProgress, CaptureRequest, Cloud, CloudError, CreateRequest, Created, DeleteProgress,
    ErrorKind, Listing, Offering, ProviderId, Residue, Residues, Result, SleepProgress, Vm, VmState,
};

#[async_trait]
impl Cloud for SimCloud {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            hibernate: true,
            power_off_deletes: self.inside().habits.power_off_deletes,
            arches: &[Arch::Amd64],
            bake: true,
            user_data_max: 16384,
        }
    }

    async fn check_access(&self) -> Result<()> {
        self.call("check access", |_, _| Ok(())).await
    }

    async fn prepare(&self, _: Size, _: Arch) -> Result<()> {
        Ok(())
    }

    async fn catalogue(&self) -> Result<Vec<Offering>> {
        self.call("read the catalogue", |inside, _| {
            let has_room = |sold: &Offering, room: Option<usize>| inside.taken(sold) < room.unwrap_or(usize::MAX);
            let shelves = inside.shelves.iter();
            Ok(shelves.map(|(sold, room)| Offering { available: has_room(sold, *room), ..sold.clone() }).collect())
        })
        .await
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created> {
        let doing = "create a machine";
        check(request, self.capabilities())?;
        let lands_at = {
            let (mut inside, now) = (self.settled(), self.clock.now());
            let (odds, by) = (inside.habits.lands_late, inside.habits.late_by);
            inside.chance.happens(odds).then(|| now + inside.chance.span(by))
        };
        if let Some(at) = lands_at {
            let landing = (at, request.clone());
            let queued = self.call(doing, |inside, _| {
                inside.faults += 1;
                inside.landings.push(landing);
                Ok(())
            });
            queued.await?;
            return Err(CloudError::new(ErrorKind::Timeout, doing, "no answer in time").ambiguous());
        }
        self.call(doing, |inside, now| {
            let id = inside.create(request, now)?;
            let address =
                inside.records.iter().find(|record| record.id == id).and_then(|record| record.address.clone());
            Ok(Created { id, address })
        })
        .await
    }

    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>> {
        self.call("find a machine", |inside, now| {
            let of_machine = inside.records.iter().filter(|record| record.is(machine));
            Ok(of_machine.filter_map(|record| record.view(now)).collect())
        })
        .await
    }

    async fn list(&self, installation: InstallationId) -> Result<Listing> {
        self.call("list machines", |inside, now| {
            let shown = inside.records.iter().filter_map(|record| record.view(now));
            let mut vms: Vec<Vm> = shown.filter(|vm| vm.installation == installation).collect();
            let complete = !inside.chance.happens(inside.habits.lists_partly);
            if !complete {
                inside.faults += 1;
                vms.retain(|_| inside.chance.happens(500));
            }
            Ok(Listing { vms, complete })
        })
        .await
    }

    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress> {
        self.call("delete a machine", |inside, now| {
            let (odds, longest) = (inside.habits.overlooks_young, inside.habits.deletes_in);
            let Some(index) = inside.records.iter().position(|record| record.is_alive() && record.id == *id) else {
                return Ok(DeleteProgress::Gone);
            };
            if inside.records[index].shown_from > now && inside.chance.happens(odds) {
                inside.faults += 1;
                return Ok(DeleteProgress::Gone);
            }
            if inside.records[index].is_protected {
                return Err(CloudError::new(ErrorKind::Permission, "delete a machine", "it is protected"));
            }
            if inside.records[index].held_since.is_some() {
                return Ok(DeleteProgress::Held);
            }
            let takes = inside.chance.span(longest);
            let record = &mut inside.records[index];
            record.deleted_at = record.deleted_at.or(Some(now + takes));
            record.state = VmState::Deleting;
            inside.settle(now);
            let is_gone = !inside.records[index].is_alive();
            Ok(if is_gone { DeleteProgress::Gone } else { DeleteProgress::InProgress })
        })
        .await
    }

    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress> {
        self.call("hibernate a machine", |inside, now| {
            let takes = inside.chance.span(inside.habits.sleeps_in);
            let index = inside.index(id, "hibernate a machine")?;
            let stops_first = inside.habits.stops_first;
            let record = &mut inside.records[index];
            if stops_first && record.is_awake() {
                record.stop();
                return Ok(SleepProgress::InProgress);
            }
            if record.can_fall_asleep() {
                record.asleep_at = record.asleep_at.or(Some(now + takes));
            } else if record.state != VmState::Hibernated {
                return Err(conflict("hibernate a machine", record));
            }
            inside.settle(now);
            Ok(if inside.records[index].can_fall_asleep() { SleepProgress::InProgress } else { SleepProgress::Asleep })
        })
        .await
    }

    async fn wake(&self, id: &ProviderId) -> Result<Vm> {
        self.call("wake a machine", |inside, now| {
            let address = inside.address();
            let index = inside.index(id, "wake a machine")?;
            let record = &mut inside.records[index];
            match record.state {
                _ if record.asleep_at.is_some() => return Err(conflict("wake a machine", record)),
                VmState::Hibernated => record.wake_up(now, address),
                VmState::Stopped => record.start(address),
                VmState::Running => {}
                _ => return Err(conflict("wake a machine", record)),
            }
            record.view(now).ok_or_else(|| none("wake a machine"))
        })
        .await
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureProgress> {
        self.call("make an image of a machine", |inside, now| inside.capture(request, now)).await
    }

    async fn list_residue(&self, installation: InstallationId) -> Result<Residues> {
        self.call("list what is left over", |inside, now| {
            let all = inside.residue.iter().cloned().chain(inside.shown_pictures(now));
            let items = all.filter(|residue| residue.installation == installation).collect();
            let complete = !inside.chance.happens(inside.habits.lists_partly);
            inside.faults += u32::from(!complete);
            Ok(Residues { items, complete })
        })
        .await
    }

    async fn delete_residue(&self, residue: &Residue) -> Result<DeleteProgress> {
        self.call("delete what is left over", |inside, now| {
            inside.residue.retain(|one| one.id != residue.id);
            Ok(inside.remove_picture(residue, now))
        })
        .await
    }

    async fn console_tail(&self, _: &ProviderId) -> Result<Option<String>> {
        Ok(None)
    }
}

impl Inside {
    /// Where the machine that exists under this id is kept.
    pub(super) fn index(&self, id: &ProviderId, doing: &'static str) -> Result<usize> {
        let found = self.records.iter().position(|record| record.is_alive() && record.id == *id);
        found.ok_or_else(|| none(doing))
    }
}

fn none(doing: &'static str) -> CloudError {
    CloudError::new(ErrorKind::NotFound, doing, "there is none")
}

fn conflict(doing: &'static str, record: &Record) -> CloudError {
    CloudError::new(ErrorKind::Conflict, doing, format!("it is {:?}", record.state))
}
