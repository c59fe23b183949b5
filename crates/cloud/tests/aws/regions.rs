//! Several regions as one account: what is full or gone in one is had in the next, and what is in any of them is found.

use std::sync::Arc;

use stagely_cloud::account::{self, Apis};
use stagely_cloud::aws::{Config, Regions};
use stagely_cloud::catalogue::candidates;
use stagely_cloud::contract::{self, captured, put_to_sleep, request};
use stagely_cloud::{
    AgentConfig, CaptureRequest, Cloud, CreateRequest, Created, DeleteProgress, ErrorKind, Offering, ProviderId,
    ResidueKind, VmState,
};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{ImageId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, Provider, Role, Size};
use stagely_domain::secret::Secret;

use super::moto;
use super::proxy::{Enforcer, between};
use super::{Bill, NOTHING, ONE_ASLEEP, ONE_AWAKE, config, is_passing};
use crate::fault_proxy::{Fault, FaultProxy};

const FIRST: &str = "eu-central-1";
const SECOND: &str = "eu-west-1";
/// More requests than any operation takes.
const MOST: usize = 60;

struct Rig {
    moto: Enforcer,
    proxy: FaultProxy,
    cloud: Regions,
}

fn both() -> Vec<String> {
    vec![FIRST.to_owned(), SECOND.to_owned()]
}

fn provider(config: &Config) -> Regions {
    Regions::new(config, &both(), &(Arc::new(SystemClock) as Arc<dyn stagely_domain::clock::Clock>)).unwrap()
}

impl Rig {
    async fn start() -> Self {
        let moto = Enforcer::start(moto::url().await).await;
        let proxy = FaultProxy::start(&moto.url).await;
        let cloud = provider(&config(&proxy.url()));
        Self { moto, proxy, cloud }
    }

    /// What fits a small machine, in the order in which the orchestrator tries it.
    async fn fitting(&self) -> Vec<Offering> {
        let all = self.cloud.catalogue().await.unwrap();
        candidates(&all, Size::Small, Arch::Amd64, &both()).into_iter().cloned().collect()
    }

    /// From now on there is no room in the first region.
    fn fill_first(&self, fitting: &[Offering]) {
        let full = fitting.iter().filter(|one| one.location.starts_with(FIRST));
        self.moto.world().knobs.full = full.map(|one| (one.name.clone(), one.location.clone())).collect();
    }

    /// Creates as the orchestrator does: whatever is refused for want of room is not asked for again.
    async fn create(&self, request: &CreateRequest, fitting: &[Offering]) -> (Offering, Created) {
        for (attempt, offering) in (0..).zip(fitting) {
            let request = CreateRequest { offering: Some(offering.clone()), attempt, ..request.clone() };
            match self.cloud.create(&request).await {
                Ok(created) => return (offering.clone(), created),
                Err(error) => assert_eq!((error.kind, error.ambiguous), (ErrorKind::Capacity, false), "{error}"),
            }
        }
        panic!("there is no room anywhere");
    }

    async fn bill_in(&self, region: &str, machine: MachineId) -> Bill {
        let id = machine.to_string();
        let filter = [("Filter.1.Name", "tag:stagely-machine"), ("Filter.1.Value.1", &*id)];
        let of = |action| [("Action", action), filter[0], filter[1]];
        let instances = self.moto.ask_in(region, &of("DescribeInstances")).await;
        let count = |state: &str| instances.matches(&format!("<name>{state}</name></instanceState>")).count();
        let volumes = self.moto.ask_in(region, &of("DescribeVolumes")).await.matches("<size>").count();
        Bill { awake: count("running") + count("pending"), asleep: count("stopped"), volumes }
    }

    /// In the first region, and in the second.
    async fn bills(&self, machine: MachineId) -> (Bill, Bill) {
        (self.bill_in(FIRST, machine).await, self.bill_in(SECOND, machine).await)
    }

    /// A machine in the second region, since the first is full.
    async fn in_second(&self) -> (CreateRequest, Created) {
        let (request, fitting) = (request(InstallationId::generate(), &SystemClock), self.fitting().await);
        self.fill_first(&fitting);
        let (offering, created) = self.create(&request, &fitting).await;
        (CreateRequest { offering: Some(offering), ..request }, created)
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn regions_keep_the_contract() {
    let rig = Rig::start().await;
    rig.moto.world().knobs.bakes_at_once = true;
    contract::keeps(&rig.cloud, &SystemClock, &[]).await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_machine_that_the_first_region_has_no_room_for_lives_in_the_second() {
    let rig = Rig::start().await;
    let fitting = rig.fitting().await;
    let turn = fitting.iter().position(|one| one.location.starts_with(SECOND)).unwrap();
    assert!(fitting[..turn].iter().all(|one| one.location.starts_with(FIRST)) && turn > 2);
    assert!(fitting[turn..].iter().all(|one| one.location.starts_with(SECOND)));
    assert_eq!((&*fitting[0].name, &*fitting[turn].name), ("t3a.small", "t3a.small"));
    assert!(fitting[turn].price < fitting[0].price, "each region has its own prices, and the order comes before them");
    let (request, created) = rig.in_second().await;
    assert_eq!(rig.bills(request.machine).await, (NOTHING, ONE_AWAKE));
    assert!(created.id.0.starts_with("eu-west-1/i-"), "{created:?}");
    // The same request is the same machine, for another process as well.
    let other = provider(&config(&rig.proxy.url()));
    let again = CreateRequest { attempt: u32::try_from(turn).unwrap(), ..request.clone() };
    assert_eq!(other.create(&again).await.unwrap().id, created.id);
    for cloud in [&rig.cloud, &other] {
        let listing = cloud.list(request.installation).await.unwrap();
        assert_eq!((listing.vms.len(), listing.complete), (1, true));
        assert_eq!(cloud.find(request.machine).await.unwrap()[0].id, created.id);
    }
    put_to_sleep(&other, &created.id).await;
    assert_eq!(rig.bills(request.machine).await, (NOTHING, ONE_ASLEEP));
    assert_eq!(other.find(request.machine).await.unwrap()[0].state, VmState::Hibernated);
    let awake = other.wake(&created.id).await.unwrap();
    assert_eq!((awake.state, &awake.id), (VmState::Running, &created.id));
    assert!(other.console_tail(&created.id).await.is_ok());
    contract::delete(&other, &created.id).await;
    assert_eq!(rig.bills(request.machine).await, (NOTHING, NOTHING));
    assert!(other.list(request.installation).await.unwrap().vms.is_empty());
    // The firewalls of both regions are there, and go.
    let left = other.list_residue(request.installation).await.unwrap();
    assert_eq!((left.items.len(), left.complete), (2, true), "{left:?}");
    assert!(left.items.iter().any(|item| item.id.starts_with("eu-west-1/sg-")));
    for item in &left.items {
        assert_eq!(other.delete_residue(item).await.unwrap(), DeleteProgress::Gone);
    }
    assert_eq!(other.list_residue(request.installation).await.unwrap().items, []);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_plain_id_is_of_the_first_region_and_a_lost_region_is_no_proof() {
    let rig = Rig::start().await;
    let (request, fitting) = (request(InstallationId::generate(), &SystemClock), rig.fitting().await);
    let (_, created) = rig.create(&request, &fitting).await;
    assert!(created.id.0.starts_with("i-"), "{created:?}");
    let named = ProviderId(format!("{FIRST}/{}", created.id.0));
    assert_eq!(rig.cloud.wake(&named).await.unwrap().id, created.id);
    // With the regions in another order it is found by its tag and told by its whole name.
    let turned = Regions::new(
        &config(&rig.proxy.url()),
        &[SECOND.to_owned(), FIRST.to_owned()],
        &(Arc::new(SystemClock) as Arc<dyn stagely_domain::clock::Clock>),
    );
    assert_eq!(turned.unwrap().find(request.machine).await.unwrap()[0].id, named);
    // What is in a region that is no more of the account is not called gone.
    let elsewhere = ProviderId(format!("us-east-1/{}", created.id.0));
    assert_eq!(rig.cloud.delete(&elsewhere).await.unwrap_err().kind, ErrorKind::Invalid);
    contract::delete(&rig.cloud, &named).await;
    assert_eq!(rig.bills(request.machine).await, (NOTHING, NOTHING));
}

/// An account as it is stored, with these regions.
fn opened(rig: &Rig, regions: &[&str]) -> Arc<dyn Cloud> {
    let Config { image, ingress_from, keys, .. } = config(&rig.proxy.url());
    let regions = regions.iter().map(|region| (*region).to_owned()).collect();
    let settings = Settings { regions, image: Some(image), ingress_from, ..Settings::default() };
    settings.check(Provider::Aws).unwrap();
    let key = ("access_key_id".to_owned(), Secret::new(keys.access_key_id));
    let given = [key, ("secret_access_key".to_owned(), keys.secret_access_key)].into();
    let credentials = Credentials::new(Provider::Aws, given).unwrap();
    let apis = Apis { aws: Some(rig.proxy.url()), ..Apis::default() };
    account::open(Provider::Aws, &settings, &credentials, &apis, Arc::new(SystemClock)).unwrap()
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_machine_of_a_region_that_was_taken_out_is_not_called_gone_and_ends_when_that_is_there_again() {
    let rig = Rig::start().await;
    let (request, created) = rig.in_second().await;
    let without = opened(&rig, &[FIRST]);
    without.check_access().await.unwrap();
    assert!(without.catalogue().await.unwrap().iter().all(|sold| sold.location.starts_with(FIRST)));
    assert_eq!(without.list(request.installation).await.unwrap().vms, []);
    for refused in [
        without.delete(&created.id).await.map(drop),
        without.hibernate(&created.id).await.map(drop),
        without.wake(&created.id).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(error.kind == ErrorKind::Invalid && error.message.contains("add it again"), "{error}");
    }
    assert_eq!(rig.bills(request.machine).await, (NOTHING, ONE_AWAKE));
    let again = opened(&rig, &[FIRST, SECOND]);
    assert_eq!(again.find(request.machine).await.unwrap()[0].id, created.id);
    contract::delete(&*again, &created.id).await;
    assert_eq!(rig.bills(request.machine).await, (NOTHING, NOTHING));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn what_was_made_in_the_second_region_is_known_by_its_name_when_that_is_the_only_one_left() {
    let rig = Rig::start().await;
    rig.moto.world().knobs.bakes_at_once = true;
    let fitting = rig.fitting().await;
    let there = fitting.iter().find(|one| one.location.starts_with(SECOND)).unwrap().clone();
    let bake = contract::baking(&rig.cloud, InstallationId::generate(), &SystemClock).await;
    let bake = CreateRequest { offering: Some(there), ..bake };
    let created = rig.cloud.create(&bake).await.unwrap();
    assert!(created.id.0.starts_with("eu-west-1/i-"), "{created:?}");
    let left = Config { region: SECOND.to_owned(), ..config(&rig.proxy.url()) };
    let left = super::provider(left);
    let wanted = CaptureRequest { image: ImageId::generate(), installation: bake.installation, machine: created.id };
    captured(&left, &wanted).await;
    // As it was called by those who knew both.
    let found = rig.cloud.list_residue(bake.installation).await.unwrap().items;
    let image = found.iter().find(|item| item.kind == ResidueKind::Image).unwrap();
    assert!(image.id.starts_with("eu-west-1/ami-"), "{image:?}");
    let here = left.list_residue(bake.installation).await.unwrap().items;
    assert!(here.iter().any(|item| item.is_image(&image.id)), "{here:?}");
    let machine = MachineId::generate();
    let boots =
        CreateRequest { machine, role: Role::Preview, bake: None, image: Some(image.id.clone()), ..bake.clone() };
    let boots = CreateRequest { config: AgentConfig { machine, role: Role::Preview, ..boots.config.clone() }, ..boots };
    let booted = left.create(&boots).await.unwrap();
    assert_eq!(rig.moto.world().made["ImageId"], image.id["eu-west-1/".len()..]);
    contract::delete(&left, &booted.id).await;
    contract::delete(&left, &wanted.machine).await;
    assert_eq!(left.delete_residue(image).await.unwrap(), DeleteProgress::Gone);
    contract::dropped(&left, bake.installation, wanted.image).await;
    contract::dropped(&rig.cloud, bake.installation, wanted.image).await;
    assert_eq!((rig.bills(bake.machine).await, rig.bills(machine).await), ((NOTHING, NOTHING), (NOTHING, NOTHING)));
    // That of another region is an error.
    let elsewhere = CaptureRequest { machine: ProviderId("us-east-1/i-1".to_owned()), ..wanted };
    assert_eq!(left.capture(&elsewhere).await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_region_that_is_down_hides_no_other_and_proves_nothing() {
    let rig = Rig::start().await;
    let (first, _) = {
        let (request, fitting) = (request(InstallationId::generate(), &SystemClock), rig.fitting().await);
        let (_, created) = rig.create(&request, &fitting).await;
        (request, created)
    };
    let (second, created) = rig.in_second().await;
    rig.moto.world().knobs.down = [FIRST].into();
    let listing = rig.cloud.list(second.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (1, false));
    let listing = rig.cloud.list(first.installation).await.unwrap();
    assert_eq!((listing.vms.len(), listing.complete), (0, false));
    assert!(!rig.cloud.list_residue(second.installation).await.unwrap().complete);
    assert_eq!(rig.cloud.find(second.machine).await.unwrap()[0].id, created.id);
    for unseen in [first.machine, MachineId::generate()] {
        let error = rig.cloud.find(unseen).await.unwrap_err();
        assert!(error.kind == ErrorKind::Unavailable && error.message.contains(FIRST), "{error}");
    }
    // Types of the other region are offered, and a machine is made there. That the first has none is not said.
    let catalogue = rig.cloud.readable_catalogue().await.unwrap();
    assert!(catalogue.unread.is_some_and(|error| error.message.contains(FIRST)));
    let fitting = rig.fitting().await;
    assert!(fitting.iter().all(|one| one.location.starts_with(SECOND)));
    let next = CreateRequest { machine: MachineId::generate(), ..second.clone() };
    rig.create(&next, &fitting).await;
    assert_eq!(rig.bills(next.machine).await, (NOTHING, ONE_AWAKE));
    rig.moto.world().knobs.down = [FIRST, SECOND].into();
    assert!(rig.cloud.list(first.installation).await.is_err() && rig.cloud.catalogue().await.is_err());
    assert!(rig.cloud.list_residue(first.installation).await.is_err());
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn after_a_lost_answer_no_other_region_is_tried_before_that_one_was_looked_at() {
    let rig = Rig::start().await;
    let (request, fitting) = (request(InstallationId::generate(), &SystemClock), rig.fitting().await);
    let in_first = CreateRequest { offering: Some(fitting[0].clone()), ..request };
    // It takes effect, and neither the answer comes nor is there a look.
    let make = |seen: &crate::fault_proxy::Seen| seen.body.starts_with(b"Action=RunInstances");
    let look = |seen: &crate::fault_proxy::Seen| seen.body.starts_with(b"Action=DescribeInstances&");
    rig.proxy.harm_when(make, Fault::LoseAnswer);
    rig.proxy.also_harm_when(look, Fault::ResetBefore);
    assert!(rig.cloud.create(&in_first).await.unwrap_err().ambiguous);
    rig.proxy.calm();
    assert_eq!(rig.bills(in_first.machine).await, (ONE_AWAKE, NOTHING));
    // The next type of that region is full: while the region cannot be looked at, nobody goes on.
    rig.fill_first(&fitting);
    let next = CreateRequest { offering: Some(fitting[1].clone()), attempt: 1, ..in_first.clone() };
    rig.proxy.harm_when(look, Fault::html(502));
    let error = rig.cloud.create(&next).await.unwrap_err();
    assert!(error.ambiguous && error.kind == ErrorKind::Unavailable, "{error}");
    // Then it is found, and is the machine.
    rig.proxy.calm();
    let created = rig.cloud.create(&next).await.unwrap();
    assert_eq!(rig.cloud.find(in_first.machine).await.unwrap()[0].id, created.id);
    assert_eq!(rig.bills(in_first.machine).await, (ONE_AWAKE, NOTHING));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_create_that_is_interrupted_anywhere_on_its_way_to_the_second_region_makes_one_machine() {
    let mut rig = Rig::start().await;
    let fitting = rig.fitting().await;
    rig.fill_first(&fitting);
    let places = [fitting[0].clone(), fitting.iter().find(|one| one.location.starts_with(SECOND)).unwrap().clone()];
    for fault in [Fault::ResetBefore, Fault::LoseAnswer, Fault::Truncate, Fault::html(502)] {
        for nth in 1..=MOST {
            rig.cloud = provider(&config(&rig.proxy.url()));
            let request = request(InstallationId::generate(), &SystemClock);
            rig.proxy.harm_nth(nth, fault.clone());
            let (mut attempt, mut created, mut calls) = (0, None, 0);
            // As the orchestrator does: on to the next place only when there is certainly none.
            while created.is_none() {
                calls += 1;
                assert!(calls < 10, "request {nth}, {fault:?}");
                let offering = Some(places[attempt].clone());
                let asked = CreateRequest { offering, attempt: u32::try_from(attempt).unwrap(), ..request.clone() };
                match rig.cloud.create(&asked).await {
                    Ok(made) => created = Some(made),
                    Err(error) if error.kind == ErrorKind::Capacity && !error.ambiguous => attempt += 1,
                    Err(error) => assert!(is_passing(error.kind), "{error}"),
                }
            }
            let harmed = rig.proxy.calm();
            assert_eq!(rig.bills(request.machine).await, (NOTHING, ONE_AWAKE), "request {nth}, {fault:?}");
            assert_eq!(rig.cloud.find(request.machine).await.unwrap().len(), 1);
            contract::delete(&rig.cloud, &created.unwrap().id).await;
            assert_eq!(rig.bills(request.machine).await, (NOTHING, NOTHING));
            if harmed == 0 {
                assert!(nth > 10, "{nth}");
                break;
            }
            assert_ne!(nth, MOST);
        }
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn a_refusal_says_in_which_region_and_a_region_that_is_not_enabled_is_told_as_such() {
    let rig = Rig::start().await;
    rig.cloud.check_access().await.unwrap();
    rig.moto.world().knobs.denied = ["RunInstances"].into();
    let error = rig.cloud.check_access().await.unwrap_err();
    assert!(error.message.contains("eu-central-1: ") && error.message.contains("eu-west-1: "), "{error}");
    assert!(error.message.contains("ec2:RunInstances") && !error.message.contains("not enabled"), "{error}");
    rig.moto.world().knobs.denied.clear();
    rig.moto.world().knobs.closed = [SECOND].into();
    let error = rig.cloud.check_access().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(error.message.contains("eu-west-1 is not enabled"), "{error}");
    assert!(!error.message.contains("eu-central-1: "), "{error}");
    // Keys that are good nowhere are bad keys.
    rig.moto.world().knobs.closed = [FIRST, SECOND].into();
    let error = rig.cloud.check_access().await.unwrap_err();
    assert!(error.kind == ErrorKind::Auth && !error.message.contains("not enabled"), "{error}");
    // Alone it can only be guessed.
    rig.moto.world().knobs.closed = ["eu-south-2"].into();
    let alone = stagely_cloud::aws::Config { region: "eu-south-2".to_owned(), ..config(&rig.proxy.url()) };
    let error = super::provider(alone).check_access().await.unwrap_err();
    assert!(error.message.contains("must enable eu-south-2"), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn places_and_subnets_are_those_of_their_region() {
    let rig = Rig::start().await;
    let mut placed = config(&rig.proxy.url());
    // A region of which no place is wanted makes no machines, and is looked at all the same.
    placed.locations = vec!["eu-west-1b".to_owned()];
    let cloud = provider(&placed);
    cloud.check_access().await.unwrap();
    let all = cloud.catalogue().await.unwrap();
    assert!(!all.is_empty() && all.iter().all(|one| one.location == "eu-west-1b"));
    let (request, fitting) = (request(InstallationId::generate(), &SystemClock), rig.fitting().await);
    rig.create(&request, &fitting).await;
    assert_eq!(cloud.find(request.machine).await.unwrap().len(), 1);
    // Each subnet is looked up in the region that has it.
    let mut chosen = config(&rig.proxy.url());
    for region in [FIRST, SECOND] {
        let zone = format!("{region}b");
        let filter =
            [("Action", "DescribeSubnets"), ("Filter.1.Name", "availability-zone"), ("Filter.1.Value.1", &*zone)];
        let answer = rig.moto.ask_in(region, &filter).await;
        chosen.subnets.push(between(&answer, "<subnetId>", "<").unwrap().to_owned());
    }
    let cloud = provider(&chosen);
    cloud.check_access().await.unwrap();
    let mut zones: Vec<String> = cloud.catalogue().await.unwrap().into_iter().map(|one| one.location).collect();
    zones.sort();
    zones.dedup();
    assert_eq!(zones, ["eu-central-1b", "eu-west-1b"]);
    chosen.subnets.push("subnet-0123456789abcdef0".to_owned());
    let error = provider(&chosen).check_access().await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("subnet-0123456789abcdef0"), "{error}");
    chosen.subnets.truncate(1);
    let error = provider(&chosen).check_access().await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("eu-west-1: no subnet"), "{error}");
}
