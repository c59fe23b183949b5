//! `stagely cloud`: what can be done with a cloud account's credentials alone, when there is no server to ask.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use stagely_cloud::account::{self, Apis};
use stagely_cloud::{Cloud, CloudError, DeleteProgress, ErrorKind, Residue, Vm};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::InstallationId;
use stagely_domain::machine::Provider;
use stagely_domain::secret::Secret;
use tokio::time::Instant;

use crate::{ClientError, Exit};

/// How long what is deleted may take to be gone.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(2);

/// Commands about clouds.
#[derive(Subcommand)]
pub(crate) enum Clouds {
    /// Print the least that an account's credentials must be allowed to do.
    Permissions {
        /// Which cloud.
        kind: Kind,
    },
    /// List everything of an installation at its cloud; with `--delete`, remove what is past its end.
    Sweep(Box<Sweep>),
}

/// Which cloud.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Aws,
    Digitalocean,
    Hetzner,
}

/// An account by its credentials, and whose machines are meant.
#[derive(Args)]
pub(crate) struct Sweep {
    /// Which cloud; credentials are taken from HCLOUD_TOKEN, DIGITALOCEAN_TOKEN, or AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY (with AWS_ROLE_ARN and AWS_EXTERNAL_ID, that role is taken on).
    kind: Kind,
    /// `ins_…`: the value of `stagely-installation` on its machines.
    #[arg(long)]
    installation: InstallationId,
    /// AWS: the region, or all regions of the account, with commas between them.
    #[arg(long = "region", env = "AWS_REGION", value_delimiter = ',')]
    regions: Vec<String>,
    /// Remove machines whose end has passed, and what they left behind.
    #[arg(long)]
    delete: bool,
    /// With `--delete`: remove the others too. Only for an installation that is no more.
    #[arg(long, requires = "delete")]
    all: bool,
    #[arg(long, env = "HCLOUD_TOKEN", hide = true, hide_env_values = true)]
    hcloud_token: Option<String>,
    #[arg(long, env = "DIGITALOCEAN_TOKEN", hide = true, hide_env_values = true)]
    digitalocean_token: Option<String>,
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide = true, hide_env_values = true)]
    access_key_id: Option<String>,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide = true, hide_env_values = true)]
    secret_access_key: Option<String>,
    #[arg(long, env = "AWS_ROLE_ARN", hide = true)]
    role_arn: Option<String>,
    #[arg(long, env = "AWS_EXTERNAL_ID", hide = true, hide_env_values = true)]
    external_id: Option<String>,
    #[arg(long, env = "AWS_ENDPOINT_URL", hide = true)]
    aws_api: Option<String>,
    #[arg(long, env = "DIGITALOCEAN_API_URL", hide = true)]
    digitalocean_api: Option<String>,
    #[arg(long, env = "HCLOUD_ENDPOINT", hide = true)]
    hetzner_api: Option<String>,
}

/// `stagely cloud permissions`
pub(crate) fn permissions(kind: Kind, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let text = match kind {
        Kind::Aws => include_str!("../../../deploy/aws/iam-policy.json").trim_end(),
        Kind::Digitalocean => include_str!("../../../deploy/digitalocean/token-scopes.txt").trim_end(),
        Kind::Hetzner => "an API token with the permission Read & Write, of a project that holds nothing else",
    };
    writeln!(out, "{text}")?;
    Ok(Exit::Done)
}

/// `stagely cloud sweep`
pub(crate) async fn sweep(sweep: &Sweep, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let cloud = sweep.open()?;
    let found = Found::look(&*cloud, sweep, SystemClock.now()).await.map_err(told)?;
    found.show(out)?;
    if !found.whole {
        return Err(ClientError::Unavailable("the provider's list is not whole: nothing is removed by it".to_owned()));
    }
    if sweep.delete {
        found.remove(&*cloud, sweep, out).await?;
    }
    Ok(Exit::Done)
}

impl Sweep {
    fn open(&self) -> Result<Arc<dyn Cloud>, ClientError> {
        let given = |name: &str, value: &Option<String>| Some((name.to_owned(), Secret::new(value.as_ref()?)));
        let (kind, variables, given) = match self.kind {
            Kind::Aws => {
                let keys = [
                    given("access_key_id", &self.access_key_id),
                    given("secret_access_key", &self.secret_access_key),
                    given("role_arn", &self.role_arn),
                    given("external_id", &self.external_id),
                ];
                (Provider::Aws, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", Vec::from(keys))
            }
            Kind::Digitalocean => {
                (Provider::Digitalocean, "DIGITALOCEAN_TOKEN", vec![given("token", &self.digitalocean_token)])
            }
            Kind::Hetzner => (Provider::Hetzner, "HCLOUD_TOKEN", vec![given("token", &self.hcloud_token)]),
        };
        if kind == Provider::Aws && self.regions.is_empty() {
            return Err(ClientError::Setup("say which region: --region, or AWS_REGION".to_owned()));
        }
        let missing = |what| ClientError::Setup(format!("{what}: set {variables}"));
        let credentials = Credentials::new(kind, given.into_iter().flatten().collect()).map_err(missing)?;
        let settings = Settings { regions: self.regions.clone(), ..Settings::default() };
        let apis = Apis {
            aws: self.aws_api.clone(),
            digitalocean: self.digitalocean_api.clone(),
            hetzner: self.hetzner_api.clone(),
        };
        account::open(kind, &settings, &credentials, &apis, Arc::new(SystemClock)).map_err(told)
    }
}

/// What there is of the installation.
struct Found {
    machines: Vec<(Vm, bool)>,
    residues: Vec<(Residue, bool)>,
    whole: bool,
    now: DateTime<Utc>,
}

impl Found {
    /// Reads both lists, and says of each thing whether it is to go.
    async fn look(cloud: &dyn Cloud, sweep: &Sweep, now: DateTime<Utc>) -> Result<Self, CloudError> {
        let listing = cloud.list(sweep.installation).await?;
        let residues = cloud.list_residue(sweep.installation).await?;
        let goes = |vm: &Vm| !vm.hold && (sweep.all || vm.expires_at < now);
        let machines: Vec<(Vm, bool)> =
            listing.vms.into_iter().map(|vm| (goes(&vm), vm)).map(|(go, vm)| (vm, go)).collect();
        let stay: HashSet<_> = machines.iter().filter(|(_, goes)| !goes).map(|(vm, _)| vm.machine).collect();
        let residues_go = |residue: &Residue| {
            !residue.hold
                && match residue.machine {
                    Some(machine) => !stay.contains(&machine),
                    // All machines share it.
                    None => sweep.all && stay.is_empty(),
                }
        };
        let whole = listing.complete && residues.complete;
        let residues = residues.items.into_iter().map(|item| (residues_go(&item), item)).map(|(go, item)| (item, go));
        Ok(Self { machines, residues: residues.collect(), whole, now })
    }

    fn show(&self, out: &mut (impl Write + ?Sized)) -> std::io::Result<()> {
        let word = |goes: bool, hold: bool| match (goes, hold) {
            (true, _) => "goes",
            (false, true) => "held",
            (false, false) => "stays",
        };
        for (vm, goes) in &self.machines {
            let left = vm.expires_at - self.now;
            let end = if left < TimeDelta::zero() { "past its end" } else { "before its end" };
            let (machine, id, state) = (vm.machine, &vm.id, &vm.state);
            writeln!(out, "{}\tmachine\t{id}\t{machine}\t{state:?}\t{end}, {}", word(*goes, vm.hold), vm.expires_at)?;
        }
        for (residue, goes) in &self.residues {
            let machine = residue.machine.map_or_else(|| "shared".to_owned(), |machine| machine.to_string());
            writeln!(out, "{}\t{:?}\t{}\t{machine}", word(*goes, residue.hold), residue.kind, residue.id)?;
        }
        writeln!(out, "{} machines, {} other things", self.machines.len(), self.residues.len())
    }

    /// Machines first: what is attached to one cannot go before it.
    async fn remove(
        &self,
        cloud: &dyn Cloud,
        sweep: &Sweep,
        out: &mut (impl Write + ?Sized),
    ) -> Result<(), ClientError> {
        let deadline = Instant::now() + PATIENCE;
        let mut failed = 0;
        for (vm, _) in self.machines.iter().filter(|(_, goes)| *goes) {
            failed += report(out, &vm.id.0, until_gone(deadline, || cloud.delete(&vm.id)).await)?;
        }
        // What a machine leaves behind shows only now.
        let rest =
            if failed == 0 { Self::look(cloud, sweep, self.now).await.map_err(told)?.residues } else { Vec::new() };
        for (residue, _) in rest.iter().filter(|(_, goes)| *goes) {
            failed += report(out, &residue.id, until_gone(deadline, || cloud.delete_residue(residue)).await)?;
        }
        match failed {
            0 => Ok(()),
            _ => Err(ClientError::Unavailable(format!("{failed} could not be removed: sweep again"))),
        }
    }
}

/// Asks until it is gone, or refused for good.
async fn until_gone<F>(deadline: Instant, delete: impl Fn() -> F) -> Result<(), CloudError>
where
    F: Future<Output = stagely_cloud::Result<DeleteProgress>>,
{
    loop {
        let wait = match delete().await {
            Ok(DeleteProgress::Gone) => return Ok(()),
            Ok(DeleteProgress::InProgress) => LOOK,
            Err(CloudError { kind: ErrorKind::RateLimited { retry_after }, .. }) => retry_after.unwrap_or(LOOK),
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Timeout) => {
                LOOK
            }
            Err(error) => return Err(error),
        };
        if Instant::now() + wait > deadline {
            return Err(CloudError::new(ErrorKind::Timeout, "delete", "it is not gone yet"));
        }
        tokio::time::sleep(wait).await;
    }
}

/// How many failed: one or none.
fn report(out: &mut (impl Write + ?Sized), id: &str, outcome: Result<(), CloudError>) -> Result<u32, ClientError> {
    match outcome {
        Ok(()) => writeln!(out, "{id}: removed")?,
        Err(error) => {
            writeln!(out, "{id}: {error}")?;
            return Ok(1);
        }
    }
    Ok(0)
}

fn told(error: CloudError) -> ClientError {
    match error.kind {
        ErrorKind::Auth | ErrorKind::Permission => ClientError::Refused(error.to_string()),
        ErrorKind::Invalid | ErrorKind::Unsupported => ClientError::Setup(error.to_string()),
        _ => ClientError::Unavailable(error.to_string()),
    }
}
