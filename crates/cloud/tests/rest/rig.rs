//! What a rig does in the same way at each provider.

use stagely_cloud::contract::{self, offered};
use stagely_cloud::{CaptureRequest, Cloud, CreateRequest, Created, VmState};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{ImageId, InstallationId};

use super::double::{Double, TOKEN};
use super::{Rig, provider};
use crate::double::Bill;
use crate::fault_proxy::FaultProxy;

impl Rig {
    pub async fn start() -> Self {
        let double = Double::start().await;
        let proxy = FaultProxy::start(&double.url()).await;
        let cloud = provider(&proxy.url(), TOKEN);
        Self { double, proxy, cloud }
    }

    /// A request for the cheapest machine.
    pub async fn request(&self) -> CreateRequest {
        offered(&self.cloud, InstallationId::generate(), &SystemClock).await
    }

    /// A machine that runs, with this on its disk.
    pub async fn running(&self, disk: &str) -> (CreateRequest, Created) {
        let request = self.request().await;
        let created = self.cloud.create(&request).await.unwrap();
        self.settle(&request).await;
        self.write(disk);
        (request, created)
    }

    /// A machine that was made to bake and has done so, with this on its disk.
    pub async fn baked(&self, disk: &str) -> (CreateRequest, CaptureRequest) {
        let request = contract::baking(&self.cloud, InstallationId::generate(), &SystemClock).await;
        let created = self.cloud.create(&request).await.unwrap();
        self.settle(&request).await;
        self.write(disk);
        self.finish_baking();
        let (image, installation) = (ImageId::generate(), request.installation);
        (request, CaptureRequest { image, installation, machine: created.id })
    }

    /// Machines that bake are done, and turn themselves off.
    pub fn finish_baking(&self) {
        self.double.world().accounts[0].finish_baking();
    }

    /// Looks until it runs.
    pub async fn settle(&self, request: &CreateRequest) {
        for _ in 0..20 {
            let found = self.cloud.find(request.machine).await.unwrap();
            if found.first().is_some_and(|vm| vm.state == VmState::Running) {
                return;
            }
        }
        panic!("it does not start");
    }

    /// Writes on the disk of every machine.
    pub fn write(&self, disk: &str) {
        for machine in self.double.world().accounts[0].machines.values_mut() {
            disk.clone_into(&mut machine.disk);
        }
    }

    /// Every machine has this status, as the provider calls it, at once and by nobody's order.
    pub fn set_status(&self, status: &'static str) {
        for machine in self.double.world().accounts[0].machines.values_mut() {
            machine.status = status;
        }
    }

    /// What is on the disk of the one machine.
    pub fn disk(&self) -> String {
        self.double.world().accounts[0].machines.values().next().map(|machine| machine.disk.clone()).unwrap_or_default()
    }

    pub fn bill(&self) -> Bill {
        self.double.world().accounts[0].bill()
    }

    /// So many requests are left, as the double counts.
    pub fn leave(&self, requests: u32) {
        self.double.world().accounts[0].left = requests;
    }
}
