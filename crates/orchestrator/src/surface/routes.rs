//! The routes of an environment's hosts, and the pages that are shown there while nothing is served.

use stagely_domain::environment::State;
use stagely_domain::ingress;
use stagely_domain::machine;
use stagely_domain::route::{self, Entry, Notice, Rule, Target};
use stagely_domain::spec::Resolved;
use stagely_store::Power;
use stagely_store::environments::Environment;
use stagely_store::machines::Machine;

use super::{deploy_failed, phrase, reason, root_host};
use crate::context::Context;
use crate::reconcile::environment::plan::Snapshot;

/// Routes that lead to the machine, and the end of those that the commit does not have any more; `None` while the
/// machine has no address.
pub fn open(context: &Context, snapshot: &Snapshot, spec: &Resolved) -> Option<Vec<Entry>> {
    let env = &snapshot.env;
    let machine = snapshot.machine()?;
    let address = machine.address.clone()?;
    let hosts = spec.hosts(&env.hash, &context.preview_domain);
    let others = snapshot.routes.iter().filter(|entry| !hosts.contains(&entry.host));
    let mut entries: Vec<Entry> =
        others.map(|entry| close(env, entry, "This preview has no such address any more.")).collect();
    entries.extend(hosts.into_iter().map(|host| {
        let of_host =
            spec.exposures.iter().filter(|exposure| exposure.host_name(&env.hash, &context.preview_domain) == host);
        let mut rules: Vec<Rule> = of_host
            .map(|exposure| Rule {
                path: exposure.path.clone(),
                exposure: ingress::label(&exposure.service, exposure.port),
            })
            .collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.path.len()));
        let target = Some(Target { machine: machine.id, address: address.clone(), rules });
        Entry { host, version: 0, environment: env.id, state: route::State::Ready, target, notice: notice(env, "") }
    }));
    Some(entries)
}

/// The same hosts, leading nowhere any more.
pub fn closed(snapshot: &Snapshot) -> Vec<Entry> {
    snapshot.routes.iter().map(|entry| close(&snapshot.env, entry, "This preview was removed.")).collect()
}

/// The routes that are not closed.
pub fn open_entries(snapshot: &Snapshot) -> impl Iterator<Item = &Entry> {
    snapshot.routes.iter().filter(|entry| entry.state != route::State::Gone)
}

/// The entries that differ from what is there: pages while nothing is served, sleep, and a moved machine.
pub fn changed(context: &Context, snapshot: &Snapshot, state: State) -> Vec<Entry> {
    let env = &snapshot.env;
    // What is asleep or wakes is still what the routes lead to; of a failed deployment nobody knows what is left.
    let keeps = matches!(state, State::Sleeping | State::Asleep | State::Waking);
    let page = |route_state, text: &str| {
        let mut entries: Vec<Entry> = open_entries(snapshot).cloned().collect();
        if entries.is_empty() {
            let host = root_host(context, env);
            entries.push(Entry {
                host,
                version: 0,
                environment: env.id,
                state: route_state,
                target: None,
                notice: Notice::default(),
            });
        }
        for entry in &mut entries {
            (entry.state, entry.notice) = (route_state, notice(env, text));
            entry.target = entry.target.take().filter(|_| keeps);
        }
        entries
    };
    match state {
        State::Live | State::Unreachable => awake_routes(snapshot),
        State::Sleeping | State::Asleep => page(route::State::Asleep, "This preview is asleep. It wakes up now."),
        State::Waking => page(route::State::Waiting, "This preview is waking up."),
        // What is being replaced goes on serving until its replacement is there, and also when none came.
        _ if snapshot.serves() && !deploy_failed(snapshot) => awake_routes(snapshot),
        State::Failed => page(route::State::Failed, &reason(snapshot).unwrap_or_default()),
        State::Destroying | State::Destroyed => Vec::new(),
        _ => page(route::State::Waiting, phrase(state)),
    }
}

/// The routes that lead to the machine if it is awake, at the address that it has now.
fn awake_routes(snapshot: &Snapshot) -> Vec<Entry> {
    let is_awake = |machine: &&Machine| machine.state == machine::State::Enrolled && machine.power == Power::Awake;
    let Some(machine) = snapshot.machine().filter(is_awake) else { return Vec::new() };
    let mut entries: Vec<Entry> = open_entries(snapshot).cloned().collect();
    for entry in &mut entries {
        if let Some(target) = &mut entry.target {
            target.machine = machine.id;
            target.address = machine.address.clone().unwrap_or_else(|| target.address.clone());
            (entry.state, entry.notice) = (route::State::Ready, notice(&snapshot.env, ""));
        }
    }
    entries
}

fn close(env: &Environment, entry: &Entry, text: &str) -> Entry {
    Entry { state: route::State::Gone, target: None, notice: notice(env, text), ..entry.clone() }
}

fn notice(env: &Environment, text: &str) -> Notice {
    let title = format!("#{} {}", env.pr.number, env.pr.title);
    Notice { title: title.chars().take(120).collect(), text: text.chars().take(500).collect(), url: env.pr.url.clone() }
}
