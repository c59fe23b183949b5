//! What every provider must do, whoever wrote it. Each case is given an empty account and leaves it empty.

use chrono::{TimeDelta, Utc};
use stagely_domain::clock::Clock;
use stagely_domain::id::{EnvironmentId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_domain::secret::Secret;

use crate::catalogue::candidates;
use crate::{
    AgentConfig, AgentDownload, Cloud, CreateRequest, DeleteProgress, ErrorKind, ProviderId, SleepProgress, VmState,
};

/// A request for a small machine of `installation`.
#[must_use]
pub fn request(installation: InstallationId, clock: &dyn Clock) -> CreateRequest {
    let machine = MachineId::generate();
    CreateRequest {
        machine,
        installation,
        environment: Some(EnvironmentId::generate()),
        role: Role::Preview,
        size: Size::Small,
        arch: Arch::Amd64,
        offering: None,
        attempt: 0,
        image: None,
        bake: None,
        expires_at: chrono::DateTime::<Utc>::from_timestamp(clock.now().timestamp(), 0).unwrap_or_default()
            + TimeDelta::hours(1),
        agent: AgentDownload { url: "http://127.0.0.1:1/agent".to_owned(), sha256: "0".repeat(64) },
        config: AgentConfig {
            hub_url: "https://10.0.2.2:1".to_owned(),
            machine,
            enrolment_token: Secret::new("contract-token"),
            ca_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
            role: Role::Preview,
            ingress_port: 7443,
        },
    }
}

/// The same, of the cheapest type that the provider has in its catalogue.
///
/// # Panics
/// When the catalogue cannot be read.
pub async fn offered(cloud: &dyn Cloud, installation: InstallationId, clock: &dyn Clock) -> CreateRequest {
    let request = request(installation, clock);
    let offerings = cloud.catalogue().await.expect("the catalogue");
    let offering = candidates(&offerings, request.size, request.arch, &[]).first().copied().cloned();
    CreateRequest { offering, ..request }
}

/// Puts a machine to sleep, however many calls that takes.
///
/// # Panics
/// When it fails, or does not end.
pub async fn put_to_sleep(cloud: &dyn Cloud, id: &ProviderId) {
    for _ in 0..120 {
        if cloud.hibernate(id).await.expect("hibernate") == SleepProgress::Asleep {
            return;
        }
    }
    panic!("{id} does not fall asleep");
}

/// Deletes a machine, however many calls that takes.
///
/// # Panics
/// When it fails, or does not end.
pub async fn delete(cloud: &dyn Cloud, id: &ProviderId) {
    for _ in 0..120 {
        if cloud.delete(id).await.expect("delete") == DeleteProgress::Gone {
            return;
        }
    }
    panic!("{id} does not go");
}

/// Runs every case.
///
/// # Panics
/// At the first case that does not hold.
pub async fn run(cloud: &dyn Cloud, clock: &dyn Clock) {
    access_is_good(cloud).await;
    what_is_absent_is_gone(cloud).await;
    a_machine_is_created_once_and_shows_its_tags(cloud, clock).await;
    another_installations_machine_is_neither_listed_nor_adopted(cloud, clock).await;
}

async fn access_is_good(cloud: &dyn Cloud) {
    cloud.check_access().await.expect("the account works");
}

async fn what_is_absent_is_gone(cloud: &dyn Cloud) {
    let absent = MachineId::generate();
    assert_eq!(cloud.find(absent).await.expect("find"), []);
    let id = ProviderId(absent.label());
    for _ in 0..2 {
        assert_eq!(cloud.delete(&id).await.expect("deleting what is absent succeeds"), DeleteProgress::Gone);
    }
    let error = cloud.hibernate(&id).await.expect_err("nothing to hibernate");
    assert_eq!(error.kind, ErrorKind::NotFound);
}

async fn a_machine_is_created_once_and_shows_its_tags(cloud: &dyn Cloud, clock: &dyn Clock) {
    let request = offered(cloud, InstallationId::generate(), clock).await;
    let first = cloud.create(&request).await.expect("create");
    let again = cloud.create(&request).await.expect("create again");
    assert_eq!(first.id, again.id, "the same request is the same machine");
    let listing = cloud.list(request.installation).await.expect("list");
    assert!(listing.complete);
    assert_eq!(listing.vms.len(), 1);
    let vm = &listing.vms[0];
    assert_eq!(
        (vm.machine, vm.installation, vm.environment, vm.expires_at),
        (request.machine, request.installation, request.environment, request.expires_at)
    );
    assert_eq!(cloud.find(request.machine).await.expect("find").len(), 1);
    if cloud.capabilities().hibernate {
        put_to_sleep(cloud, &first.id).await;
        let again = cloud.hibernate(&first.id).await.expect("hibernating what sleeps changes nothing");
        assert_eq!(again, SleepProgress::Asleep);
        assert_eq!(cloud.find(request.machine).await.expect("find")[0].state, VmState::Hibernated);
        assert_eq!(cloud.wake(&first.id).await.expect("wake").state, VmState::Running);
        assert_eq!(cloud.wake(&first.id).await.expect("waking what is awake changes nothing").state, VmState::Running);
    }
    delete(cloud, &first.id).await;
    assert_eq!(cloud.list(request.installation).await.expect("list").vms, []);
    assert_eq!(cloud.delete(&first.id).await.expect("delete again"), DeleteProgress::Gone);
}

async fn another_installations_machine_is_neither_listed_nor_adopted(cloud: &dyn Cloud, clock: &dyn Clock) {
    let request = offered(cloud, InstallationId::generate(), clock).await;
    let created = cloud.create(&request).await.expect("create");
    let other = InstallationId::generate();
    assert_eq!(cloud.list(other).await.expect("list").vms, []);
    let stolen = CreateRequest { installation: other, ..request };
    assert_eq!(cloud.create(&stolen).await.expect_err("foreign").kind, ErrorKind::Exists);
    delete(cloud, &created.id).await;
}
