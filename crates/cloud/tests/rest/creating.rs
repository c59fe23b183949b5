//! Making machines: refused, placed or not, and answers that are strange.

use stagely_cloud::catalogue::candidates;
use stagely_cloud::contract::delete;
use stagely_cloud::{Cloud, CreateRequest, ErrorKind, VmState};
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};

use super::Rig;
use crate::double::NOTHING;

#[tokio::test]
async fn no_room_and_no_allowance_are_told_apart_and_asked_for_once() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    let (name, place) = Rig::CHEAPEST;
    rig.double.world().knobs.full = [(name, place)].into();
    let error = rig.cloud.create(&request).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Capacity, false));
    assert!(error.message.contains(&format!("{name} in {place}")), "{error}");
    let all = rig.cloud.catalogue().await.unwrap();
    let next = candidates(&all, Size::Small, Arch::Amd64, &[])[1].clone();
    let elsewhere = CreateRequest { offering: Some(next), ..request.clone() };
    rig.cloud.create(&elsewhere).await.unwrap();
    rig.double.world().knobs.machine_limit = 1;
    let other = CreateRequest { machine: MachineId::generate(), ..elsewhere };
    assert_eq!(rig.cloud.create(&other).await.unwrap_err().kind, ErrorKind::Quota);
    assert_eq!(rig.asked(&format!("POST {}", Rig::MACHINES)), 3);
}

#[tokio::test]
async fn a_type_that_is_retired_unknown_or_not_sold_there_is_named() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    for (name, location, kind) in Rig::NOT_SOLD {
        let mut offering = request.offering.clone().unwrap();
        (offering.name, offering.location) = (name.to_owned(), location.to_owned());
        let error = rig.cloud.create(&CreateRequest { offering: Some(offering), ..request.clone() }).await.unwrap_err();
        assert_eq!(error.kind, kind);
        assert!(error.message.contains(name) && error.message.contains(location), "{error}");
    }
    assert_eq!(rig.bill(), NOTHING);
}

#[tokio::test]
async fn user_data_arrives_unharmed_up_to_the_limit_and_not_beyond() {
    let rig = Rig::start().await;
    let mut request = rig.request().await;
    let words = "\"'$(reboot)\u{1f600}\n";
    request.config.ca_pem = words.repeat(Rig::USER_DATA_MAX / 2 / words.len());
    rig.cloud.create(&request).await.unwrap();
    let sent = rig.user_data();
    assert!(sent.starts_with("#cloud-config\n") && sent.contains("contract-token") && sent.len() <= Rig::USER_DATA_MAX);
    request.config.ca_pem = "x".repeat(Rig::USER_DATA_MAX);
    rig.double.world().requests.clear();
    assert_eq!(rig.cloud.create(&request).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(rig.asked(""), 0);
}

#[tokio::test]
async fn strange_answers_are_tolerated() {
    let rig = Rig::start().await;
    let request = rig.request().await;
    rig.double.world().knobs.strange = true;
    let created = rig.cloud.create(&request).await.unwrap();
    let listing = rig.cloud.list(request.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (1, true));
    assert_eq!(listing.vms[0].state, VmState::Other("dreaming".to_owned()));
    assert_eq!(rig.cloud.list(InstallationId::generate()).await.unwrap().vms, []);
    // It is made still, and may not go yet.
    for _ in 0..10 {
        let _ = rig.cloud.find(request.machine).await.unwrap();
    }
    delete(&rig.cloud, &created.id).await;
    assert_eq!(rig.bill(), NOTHING);
}
