//! The providers' contract at a real account: what it will make is said first, and what it made is gone at the end.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use stagely_cloud::contract::{CASES, Case, Failure, Patience, Purse, Trial};
use stagely_domain::account::Settings;
use stagely_domain::clock::SystemClock;
use stagely_domain::cost::Billing;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::account::Account;
use super::plan::{Plan, micros};
use super::told;
use crate::{ClientError, Exit};

/// An account, and how much it may cost.
#[derive(Args)]
pub(crate) struct Conformance {
    #[command(flatten)]
    account: Account,
    /// The most that it may cost, in the provider's currency: `1.00`.
    #[arg(long, value_name = "AMOUNT", value_parser = micros)]
    max_spend: u64,
    /// Where machines are made, in the provider's names; default: anywhere.
    #[arg(long = "location", value_name = "PLACE")]
    locations: Vec<String>,
    /// AWS: a subnet in which machines are made; may be repeated; default: those of each region's default VPC.
    #[arg(long = "subnet", value_name = "SUBNET")]
    subnets: Vec<String>,
    /// What machines boot; default: the provider's Debian 13.
    #[arg(long)]
    image: Option<String>,
    /// DigitalOcean: the id or fingerprint of a key; without one it mails a password for each machine.
    #[arg(long = "ssh-key", value_name = "KEY")]
    ssh_keys: Vec<String>,
    /// Also where the provider tells no price.
    #[arg(long)]
    unpriced: bool,
    /// Say what would be made, and make nothing.
    #[arg(long)]
    dry_run: bool,
    #[arg(long, hide = true, default_value_t = 3000)]
    look_millis: u64,
}

impl Conformance {
    fn settings(&self) -> Settings {
        Settings {
            locations: self.locations.clone(),
            subnets: self.subnets.clone(),
            image: self.image.clone(),
            ssh_keys: self.ssh_keys.clone(),
            ..Settings::default()
        }
    }
}

/// What became of a case.
enum Verdict {
    Holds,
    Fails(Failure),
    Interrupted,
}

/// `stagely cloud conformance`
pub(crate) async fn conformance(wanted: &Conformance, out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    let (provider, cloud) = (wanted.account.kind.provider(), wanted.account.open(wanted.settings())?);
    let patience = Patience { look: Duration::from_millis(wanted.look_millis), ..Patience::default() };
    let purse = Purse::new(wanted.max_spend, Billing::of(provider), patience.longest());
    let (offerings, capabilities) = (cloud.catalogue().await.map_err(told)?, cloud.capabilities());
    let plan = Plan::of(provider, &capabilities, &offerings, &purse, patience.longest());
    plan.show(out)?;
    plan.check(wanted.max_spend, wanted.unpriced)?;
    if wanted.dry_run {
        return Ok(Exit::Done);
    }
    let mut ends = Ends::new()?;
    let (mut failed, mut left) = (0, Vec::new());
    for case in CASES {
        if let Some(why) = case.not_asked(&capabilities, &offerings) {
            say(out, case, &format!("not asked here: {why}"))?;
            continue;
        }
        let trial = Trial::new(&*cloud, &SystemClock, &offerings, patience, &purse);
        let [one, other] = trial.installations();
        // Whoever is killed now can sweep: nothing has been made before this is said.
        if !case.starts.is_empty() {
            writeln!(out, "     {} makes machines of {one}, or {other}", case.number)?;
            out.flush()?;
        }
        let verdict = tokio::select! {
            outcome = case.ask(&trial) => outcome.map_or_else(Verdict::Fails, |()| Verdict::Holds),
            () = ends.next() => Verdict::Interrupted,
        };
        let remains = tokio::select! {
            remains = trial.clear() => remains,
            () = ends.next() => trial.left("clearing up was interrupted"),
        };
        left.extend(remains);
        let stops = matches!(verdict, Verdict::Interrupted);
        failed += u32::from(!matches!(verdict, Verdict::Holds));
        let said = match verdict {
            Verdict::Holds => "ok".to_owned(),
            Verdict::Fails(failure) => format!("not ok: {failure}"),
            Verdict::Interrupted => "interrupted".to_owned(),
        };
        // The account is clean by now, or what is left is said below: an output that is closed ends nothing before that.
        let shown = say(out, case, &said);
        if stops || shown.is_err() || !left.is_empty() {
            break;
        }
    }
    verdict(out, failed, &left)
}

/// The last lines. An output that is closed changes nothing of what came of it.
fn verdict(out: &mut (impl Write + ?Sized), failed: u32, left: &[String]) -> Result<Exit, ClientError> {
    if !left.is_empty() {
        return Err(ClientError::NotThere(format!(
            "these could not be removed and may go on costing: {}; `stagely cloud sweep` with their installation, \
             --delete --all, removes them",
            left.join(", ")
        )));
    }
    let (line, exit) = match failed {
        0 => ("all that was asked holds; nothing is left".to_owned(), Exit::Done),
        _ => (format!("{failed} not ok; nothing is left"), Exit::Wrong),
    };
    writeln!(out, "{line}").ok();
    Ok(exit)
}

fn say(out: &mut (impl Write + ?Sized), case: &Case, verdict: &str) -> std::io::Result<()> {
    writeln!(out, "{:>3}  {}: {verdict}", case.number, case.name.replace('_', " "))?;
    out.flush()
}

/// What ends it early: Ctrl-C, or whoever runs it.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn new() -> Result<Self, ClientError> {
        let listen = |kind| signal(kind).map_err(|error| ClientError::Setup(format!("listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Conformance;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        conformance: Conformance,
    }

    #[test]
    fn machines_are_made_in_the_subnets_that_are_named() {
        let line = "conformance --account aws --max-spend 1.00 --region eu-central-1 --subnet subnet-1".split(' ');
        let wanted = Line::try_parse_from(line.chain(["--subnet", "subnet-2"])).unwrap().conformance;
        assert_eq!(wanted.settings().subnets, ["subnet-1", "subnet-2"]);
    }
}
