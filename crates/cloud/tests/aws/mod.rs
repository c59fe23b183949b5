//! AWS EC2 against moto, with a proxy that enforces what moto does not, and one before it that does harm.

mod access;
mod allowance;
mod baking;
mod creating;
mod deleting;
mod interrupted;
mod listing;
mod moto;
mod pricelist;
mod prices;
mod proxy;
mod refusals;
mod regions;
mod residue;
mod sleeping;

use std::sync::Arc;
use std::time::Duration;

use stagely_cloud::aws::{Aws, Config, DISK_GIB, Keys, Limits, Timing, permissions};
use stagely_cloud::contract::{self, offered};
use stagely_cloud::{Cloud, CreateRequest, Created, ErrorKind};
use stagely_domain::clock::SystemClock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::secret::Secret;

use crate::fault_proxy::FaultProxy;
use proxy::Enforcer;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYTESTSECRET";

/// moto, the proxies before it, and a provider that speaks to them.
struct Rig {
    moto: Enforcer,
    proxy: FaultProxy,
    cloud: Aws,
}

/// What costs money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bill {
    awake: usize,
    asleep: usize,
    volumes: usize,
}

const ONE_AWAKE: Bill = Bill { awake: 1, asleep: 0, volumes: 1 };
const ONE_ASLEEP: Bill = Bill { awake: 0, asleep: 1, volumes: 1 };
const NOTHING: Bill = Bill { awake: 0, asleep: 0, volumes: 0 };

impl Rig {
    async fn start() -> Self {
        let moto = Enforcer::start(moto::url().await).await;
        let proxy = FaultProxy::start(&moto.url).await;
        let cloud = provider(config(&proxy.url()));
        Self { moto, proxy, cloud }
    }

    /// A request for the smallest machine.
    async fn request(&self) -> CreateRequest {
        offered(&self.cloud, InstallationId::generate(), &SystemClock).await
    }

    async fn running(&self) -> (CreateRequest, Created) {
        let request = self.request().await;
        let created = self.cloud.create(&request).await.unwrap();
        (request, created)
    }

    /// What this machine costs at the provider itself.
    async fn bill(&self, machine: MachineId) -> Bill {
        let filter = |action| [("Action", action), ("Filter.1.Name", "tag:stagely-machine"), ("Filter.1.Value.1", "")];
        let id = machine.to_string();
        let [mut instances, mut volumes] = [filter("DescribeInstances"), filter("DescribeVolumes")];
        (instances[2].1, volumes[2].1) = (&id, &id);
        let instances = self.moto.ask(&instances).await;
        let count = |state: &str| instances.matches(&format!("<name>{state}</name></instanceState>")).count();
        Bill {
            awake: count("running") + count("pending"),
            asleep: count("stopped"),
            volumes: self.moto.ask(&volumes).await.matches("<size>").count(),
        }
    }

    /// How often an action was asked for.
    fn asked(&self, action: &str) -> usize {
        self.moto.world().actions.iter().filter(|asked| *asked == action).count()
    }
}

fn provider(config: Config) -> Aws {
    Aws::new(config, Arc::new(SystemClock)).unwrap()
}

fn config(url: &str) -> Config {
    Config {
        region: "eu-central-1".to_owned(),
        endpoint: Some(url.to_owned()),
        keys: Keys {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: Secret::new(SECRET),
            session_token: None,
        },
        role: None,
        locations: Vec::new(),
        subnets: Vec::new(),
        // The only ones that moto knows.
        image: "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{machine}".to_owned(),
        disk_gib: DISK_GIB,
        ingress_from: vec!["198.51.100.7/32".to_owned(), "2001:db8:1::/64".to_owned()],
        timing: Timing {
            // moto is slow with a thousand machines while other tests run.
            request: Duration::from_secs(60),
            action: Duration::from_millis(300),
            poll: Duration::from_millis(1),
            settle: Duration::from_millis(50),
        },
        limits: Limits::None,
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn aws_keeps_the_contract() {
    let rig = Rig::start().await;
    rig.moto.world().knobs.bakes_at_once = true;
    contract::keeps(&rig.cloud, &SystemClock, &[]).await;
    let allowed: Vec<&str> = permissions().filter_map(|permission| permission.split(':').nth(1)).collect();
    let actions = rig.moto.world().actions.clone();
    let asked = actions.iter().filter(|action| *action != "GetCallerIdentity");
    for action in asked {
        assert!(allowed.contains(&&**action), "{action} is sent, and no policy allows it");
    }
    // The dry runs of the access check are all that can be sent, but for tags, which go with what is made.
    for action in allowed.iter().filter(|action| !["CreateTags", "GetParameters"].contains(*action)) {
        assert!(actions.iter().any(|asked| asked == action), "{action} is not tried out");
    }
}

/// A kind that says only that the other side is not well, or busy.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol | ErrorKind::Conflict)
}
