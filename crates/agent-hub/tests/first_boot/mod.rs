//! The first boot of a machine at a cloud, on a real virtual machine: an image like those that clouds have, cloud-init as
//! Debian configures it, the user data that AWS, Hetzner and DigitalOcean are given, and a hub to enrol at.

mod disk;
mod guest;
mod registry;
mod seeds;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use stagely_agent_hub::Config;
use stagely_cloud::testing::{acceleration, user_data};
use stagely_cloud::{AgentConfig, AgentDownload, Bake, CreateRequest, contract};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::Role;
use stagely_domain::secret::Secret;
use stagely_store::testing::TestDb;
use tokio::time::{Instant, sleep};

use crate::stack::{Hub, Seed, seed};
use disk::Disk;
use guest::Guest;
use registry::Images;
use seeds::Seeds;

/// How machines reach this host's loopback.
const HOST: &str = "10.0.2.2";
/// How long anything may take under software emulation beside other machines.
const PATIENCE: Duration = Duration::from_secs(1500);
/// When machines that nobody is to enrol end themselves here.
const SHORT: Duration = Duration::from_secs(240);

/// Set by `cargo xtask contract`, which has built or filled them.
#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn artifact(name: &str) -> PathBuf {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask contract`")).into()
}

/// Everything that machines need.
struct World {
    db: TestDb,
    seed: Seed,
    hub: Hub,
    seeds: Seeds,
    images: Images,
    agent: Vec<u8>,
    stock: PathBuf,
    state: tempfile::TempDir,
    accel: &'static str,
}

impl World {
    async fn start() -> Self {
        let db = TestDb::new().await;
        let seed = seed(&db).await;
        let config = Config { server_names: vec![HOST.to_owned(), "127.0.0.1".to_owned()], ..Config::default() };
        let hub = Hub::start_with(&db, config).await;
        let state = tempfile::tempdir().unwrap();
        let stock = artifact("STAGELY_TEST_STOCK_IMAGE_DIR");
        let accel = acceleration(state.path(), &stock).await;
        let images = Images::start(&artifact("STAGELY_TEST_BASE_IMAGES"), state.path()).await;
        let agent = std::fs::read(artifact("STAGELY_TEST_AGENT")).unwrap();
        let seeds = Seeds::start().await;
        Self { db, seed, hub, seeds, images, agent, stock, state, accel }
    }

    /// A request for a machine whose agent enrols at the hub.
    async fn request(&self, name: &str) -> CreateRequest {
        let machine = self.seed.preview(&self.db).await;
        let (token, ca_pem) = self.hub.prepare(machine).await;
        self.seeds.put(&format!("{name}/agent"), &self.agent);
        CreateRequest {
            machine,
            agent: AgentDownload {
                url: self.seeds.url(&format!("{name}/agent")),
                sha256: digest(&SHA256, &self.agent).as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            },
            config: AgentConfig {
                hub_url: format!("https://{HOST}:{}", self.hub.address.port()),
                machine,
                enrolment_token: Secret::new(token),
                ca_pem,
                role: Role::Preview,
                ingress_port: 7443,
            },
            ..contract::request(InstallationId::generate(), &SystemClock)
        }
    }

    /// A machine over `disk` that boots with `user_data`, and with `vendor_data` of its provider.
    fn boot(&self, name: &str, disk: &Path, user_data: &str, vendor_data: &str) -> Guest {
        self.seeds.put(&format!("{name}/user-data"), user_data.as_bytes());
        self.seeds.put(&format!("{name}/vendor-data"), vendor_data.as_bytes());
        let meta_data = format!("instance-id: {name}\nlocal-hostname: {name}\n");
        self.seeds.put(&format!("{name}/meta-data"), meta_data.as_bytes());
        let directory = self.state.path().join(name);
        Guest::boot(&directory, &self.stock, disk, &self.seeds.url(&format!("{name}/")), self.accel)
    }

    /// Waits until the machine's agent has enrolled.
    async fn enrolled(&self, guest: &mut Guest, machine: MachineId) {
        let sql = format!(
            "SELECT count(*) FROM agent_connections WHERE machine_id = '{}' AND connected_at IS NOT NULL",
            machine.uuid()
        );
        let until = Instant::now() + PATIENCE;
        let mut prepared = Instant::now();
        while self.db.text(&sql).await != "1" {
            assert!(guest.runs() && Instant::now() < until, "it does not enrol: {}", guest.tail());
            if prepared.elapsed() > Duration::from_secs(300) {
                // As the orchestrator does while a machine boots.
                self.hub.prepare(machine).await;
                prepared = Instant::now();
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn stock_disk(&self) -> PathBuf {
        self.stock.join("disk.qcow2")
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots real machines: cargo xtask contract"]
async fn a_stock_image_becomes_a_machine_and_a_baked_one_installs_nothing_more() {
    let world = World::start().await;
    let (stock, baked) = tokio::join!(a_stock_image_installs_what_lacks(&world), an_image_is_baked(&world));
    // As many at a time as before, so that the two times can be compared.
    let (soon, ()) = tokio::join!(
        a_baked_image_installs_nothing(&world, &baked),
        a_program_of_another_hash_never_runs(&world, &baked),
    );
    tokio::join!(what_nobody_enrols_ends(&world, &baked), a_bake_that_fails_stays_until_its_deadline(&world, &baked));
    println!("first boot until enrolled: stock image {} s, baked image {} s", stock.as_secs(), soon.as_secs());
    world.hub.stop().await;
}

async fn a_stock_image_installs_what_lacks(world: &World) -> Duration {
    let request = world.request("stock").await;
    let mut guest = world.boot("stock", &world.stock_disk(), &user_data(&request, None).unwrap(), "");
    world.enrolled(&mut guest, request.machine).await;
    let took = guest.age();
    let words = [
        "Started stagely-deadline.timer",
        "Setting up docker.io",
        "Started docker.service",
        "Started stagely-agent.service",
    ];
    guest.said_in_order(&words);
    guest.never_said(&["stagely: could not", "BAD-PASSWD", "Traceback"]);
    assert_eq!(world.seeds.asked("stock/agent"), 1);
    guest.end().await;
    took
}

#[expect(clippy::print_stdout, reason = "how long it took is worth knowing")]
async fn an_image_is_baked(world: &World) -> PathBuf {
    let request = CreateRequest {
        role: Role::Bake,
        bake: Some(Bake { base_images: vec![world.images.name("library/debian:13-slim")] }),
        ..world.request("bake").await
    };
    let user_data = user_data(&request, None).unwrap();
    let mut guest = world.boot("bake", &world.stock_disk(), &user_data, &world.images.trust());
    guest.ends(PATIENCE).await;
    guest.said_in_order(&[
        "Started stagely-deadline.timer",
        "Setting up docker.io",
        "stagely: bake done",
        "Power down",
    ]);
    guest.never_said(&["bake failed", "Started stagely-agent.service"]);
    println!("baked within {} s", guest.age().as_secs());
    let disk = Disk::open(&guest.disk(), world.state.path()).await;
    for gone in ["/etc/stagely", "/var/lib/stagely", "/var/lib/cloud/instance", "/var/lib/docker/engine-id"] {
        assert!(!disk.has(gone).await, "{gone} is still there");
    }
    for emptied in ["/var/lib/apt/lists", "/var/log/journal", "/var/cache/apt/archives"] {
        let names = disk.names(emptied).await;
        let left: Vec<_> =
            names.iter().filter(|name| !["partial", "lock", "auxfiles"].contains(&name.as_str())).collect();
        assert!(left.is_empty(), "{emptied} has {left:?}");
    }
    let keys = disk.names("/etc/ssh").await;
    assert!(!keys.iter().any(|name| name.starts_with("ssh_host_")), "{keys:?}");
    assert_eq!(disk.text("/etc/machine-id").await, "");
    assert!(
        disk.has("/usr/local/bin/stagely-agent").await && disk.has("/etc/systemd/system/stagely-agent.service").await
    );
    assert!(!disk.has("/etc/systemd/system/multi-user.target.wants/stagely-agent.service").await);
    guest.disk()
}

async fn a_baked_image_installs_nothing(world: &World, baked: &Path) -> Duration {
    let request = world.request("baked").await;
    let mut guest = world.boot("baked", baked, &user_data(&request, None).unwrap(), "");
    world.enrolled(&mut guest, request.machine).await;
    let took = guest.age();
    guest.said_in_order(&[
        "Initializing machine ID",
        "Started stagely-deadline.timer",
        "Started stagely-agent.service",
    ]);
    guest.said_in_order(&["Started docker.service"]);
    guest.never_said(&["Reading package lists", "stagely: could not", "Traceback"]);
    assert_eq!(world.seeds.asked("baked/agent"), 0, "it has the program");
    guest.says("BEGIN SSH HOST KEY KEYS", PATIENCE).await;
    guest.end().await;
    took
}

async fn a_program_of_another_hash_never_runs(world: &World, baked: &Path) {
    let mut request = world.request("strange").await;
    request.agent.sha256 = "0".repeat(64);
    let mut guest = world.boot("strange", baked, &user_data(&request, None).unwrap(), "");
    guest.ends(PATIENCE).await;
    guest.said_in_order(&["stagely: could not install the agent's program of hash 000", "Power down"]);
    guest.never_said(&["Started stagely-agent.service"]);
    assert!(world.seeds.asked("strange/agent") > 1);
    let disk = Disk::open(&guest.disk(), world.state.path()).await;
    assert!(!disk.has("/usr/local/bin/stagely-agent").await);
}

async fn what_nobody_enrols_ends(world: &World, baked: &Path) {
    let mut request = world.request("alone").await;
    request.config.hub_url = format!("https://{HOST}:1");
    let image = world.images.name("library/debian:13-slim");
    // A provider's own script, which runs before ours: what was baked is there without a registry, and Docker runs it.
    let look =
        format!("#!/bin/sh\ndocker run --rm --pull never {image} echo it runs what was baked >/dev/console 2>&1\n");
    let mut guest = world.boot("alone", baked, &user_data(&request, Some(SHORT)).unwrap(), &look);
    guest.ends(PATIENCE).await;
    let words =
        ["Started stagely-deadline.timer", "it runs what was baked", "Started stagely-agent.service", "Power down"];
    guest.said_in_order(&words);
    assert!(guest.age() > SHORT, "it ended after {:?}", guest.age());
}

async fn a_bake_that_fails_stays_until_its_deadline(world: &World, baked: &Path) {
    let absent = world.images.name("library/nobody:1");
    let bake = Some(Bake { base_images: vec![absent.clone()] });
    let request = CreateRequest { bake, ..world.request("failing").await };
    let user_data = user_data(&request, Some(SHORT)).unwrap();
    let mut guest = world.boot("failing", baked, &user_data, &world.images.trust());
    guest.says(&format!("stagely: bake failed: pull {absent}"), PATIENCE).await;
    guest.says("finished at", PATIENCE).await;
    assert!(guest.runs(), "it ended by itself");
    guest.ends(PATIENCE).await;
    guest.never_said(&["bake done"]);
    assert!(guest.age() > SHORT, "it ended after {:?}", guest.age());
}
