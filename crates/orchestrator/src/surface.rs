//! What people see of an environment: routes and their pages, the comment, the check, the deployment. Everything is
//! derived from the rows each time; what has not changed is not written.

use stagely_domain::cost::Money;
use stagely_domain::environment::State;
use stagely_domain::failure::Failure as RunFailure;
use stagely_domain::ingress;
use stagely_domain::machine;
use stagely_domain::offering;
use stagely_domain::route::{self, Entry, Notice, Rule, Target};
use stagely_domain::run;
use stagely_domain::spec::Resolved;
use stagely_forge::{Check, CheckStatus, Conclusion, Deployment, DeploymentState, markdown};
use stagely_reconcile::{ErrorClass, Failure};
use stagely_store::environments::Environment;
use stagely_store::machines::Machine;
use stagely_store::posts::{Kind, Post};
use stagely_store::work::kind;
use stagely_store::{Power, Presence, Tx};

use crate::context::{Context, stored};
use crate::reconcile::environment::plan::Snapshot;

/// The root URL's host.
pub fn root_host(context: &Context, env: &Environment) -> String {
    format!("{}.{}", env.hash, context.preview_domain)
}

/// Why the environment stands where it stands, in a sentence.
pub fn reason(snapshot: &Snapshot) -> Option<String> {
    let failed = failure(snapshot).map(|failure| failure.message.clone());
    failed.or_else(|| snapshot.env.reason.clone())
}

/// What went wrong: with the run, or after it with the machine that was live.
fn failure(snapshot: &Snapshot) -> Option<&RunFailure> {
    let of_run = snapshot.run.as_ref().and_then(|run| run.failure.as_ref());
    let is_kept = snapshot.env.desired == Presence::Present;
    let lost = snapshot.newest.as_ref().filter(|_| is_kept && snapshot.machine().is_none());
    of_run.or_else(|| lost.and_then(|machine| machine.failure.as_ref()))
}

/// Routes that lead to the machine, and the end of those that the commit does not have any more; `None` while the machine
/// has no address.
pub fn open_routes(context: &Context, snapshot: &Snapshot, spec: &Resolved) -> Option<Vec<Entry>> {
    let env = &snapshot.env;
    let machine = snapshot.machine()?;
    let address = machine.address.clone()?;
    let hosts = spec.hosts(&env.hash, &context.preview_domain);
    let others = snapshot.routes.iter().filter(|entry| !hosts.contains(&entry.host));
    let mut entries: Vec<Entry> =
        others.map(|entry| closed(env, entry, "This preview has no such address any more.")).collect();
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
pub fn closed_routes(snapshot: &Snapshot) -> Vec<Entry> {
    snapshot.routes.iter().map(|entry| closed(&snapshot.env, entry, "This preview was removed.")).collect()
}

fn closed(env: &Environment, entry: &Entry, text: &str) -> Entry {
    Entry { state: route::State::Gone, target: None, notice: notice(env, text), ..entry.clone() }
}

/// The routes that are not closed.
fn open_entries(snapshot: &Snapshot) -> impl Iterator<Item = &Entry> {
    snapshot.routes.iter().filter(|entry| entry.state != route::State::Gone)
}

/// Writes routes and posts as they should be for `state`, and wakes who brings them out.
pub async fn write(context: &Context, tx: &Tx, snapshot: &Snapshot, state: State) -> Result<(), Failure> {
    let doing = "write what people see";
    let env = &snapshot.env;
    for entry in routes(context, snapshot, state) {
        tx.write_route(env.team, env.generation, &entry).await.map_err(stored(doing))?;
        tx.wake(kind::ROUTE, env.id.uuid()).await.map_err(stored(doing))?;
    }
    let json = |value: serde_json::Result<serde_json::Value>| {
        value.map_err(|error| Failure::new(ErrorClass::Permanent, doing, error))
    };
    let is_gone = is_gone(state);
    let mut posts =
        vec![(Kind::Comment, String::new(), serde_json::json!({"body": comment(context, snapshot, state)}))];
    if !is_gone {
        posts.push((Kind::Check, env.pr.sha.clone(), json(serde_json::to_value(check(context, snapshot, state)))?));
        if snapshot.run.as_ref().is_some_and(|run| run.spec.is_some()) {
            let wanted = json(serde_json::to_value(deployment(context, snapshot, state)))?;
            posts.push((Kind::Deployment, env.pr.sha.clone(), wanted));
        }
    }
    let earlier = context.store.list_posts(env.id).await.map_err(stored(doing))?;
    for post in earlier.iter().filter(|post| is_gone || post.sha != env.pr.sha) {
        posts.extend(ended(post, state).map(|wanted| (post.kind, post.sha.clone(), wanted)));
    }
    for (kind_of_post, sha, wanted) in posts {
        let changed = tx.want_post(env.team, env.id, kind_of_post, &sha, &wanted).await.map_err(stored(doing))?;
        if let Some(post) = changed {
            tx.wake(kind::POST, post.uuid()).await.map_err(stored(doing))?;
        }
    }
    Ok(())
}

/// The entries that differ from what is there: pages while nothing is served, sleep, and a moved machine.
fn routes(context: &Context, snapshot: &Snapshot, state: State) -> Vec<Entry> {
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

/// Whether the failure came after the agent had begun to replace what was live.
fn deploy_failed(snapshot: &Snapshot) -> bool {
    let failure = snapshot.run.as_ref().and_then(|run| run.failure.as_ref());
    failure.is_some_and(|failure| {
        !matches!(failure.phase.as_str(), "read" | "build" | "push" | "boot" | "checkout" | "pull")
    })
}

fn notice(env: &Environment, text: &str) -> Notice {
    let title = format!("#{} {}", env.pr.number, env.pr.title);
    Notice { title: title.chars().take(120).collect(), text: text.chars().take(500).collect(), url: env.pr.url.clone() }
}

const fn phrase(state: State) -> &'static str {
    match state {
        State::Queued => "Queued",
        State::AwaitingApproval => "Waits for a member's approval",
        State::Building => "Building images, booting the machine",
        State::Provisioning => "Images are ready, the machine is booting",
        State::Deploying => "Starting the services",
        State::Live => "Live",
        State::Sleeping => "Falling asleep",
        State::Asleep => "Asleep; the next visit wakes it",
        State::Waking => "Waking up",
        State::Failed => "Failed",
        State::Unreachable => "The machine does not answer",
        State::Destroying => "Being removed",
        State::Destroyed => "Removed",
    }
}

fn comment(context: &Context, snapshot: &Snapshot, state: State) -> String {
    let env = &snapshot.env;
    let failure = failure(snapshot);
    let sign = match state {
        State::Live => "🟢",
        State::Failed | State::Unreachable => "🔴",
        State::Asleep | State::Sleeping => "🌙",
        State::Destroyed | State::Destroying => "⚪",
        _ => "🟡",
    };
    let mut body = format!("### {sign} Preview: {}\n\n", phrase(state));
    let gone = matches!(state, State::Destroyed | State::Destroying);
    if !gone && (matches!(state, State::Live | State::Asleep) || snapshot.serves()) {
        let url = context.preview_url.of(&root_host(context, env));
        body.push_str(&format!("**{url}**\n\n"));
        let root = root_host(context, env);
        for entry in open_entries(snapshot).filter(|entry| entry.host != root) {
            body.push_str(&format!("- {}\n", context.preview_url.of(&entry.host)));
        }
    }
    if let Some(failure) = failure {
        body.push_str(&failed(failure));
        if snapshot.serves() && !deploy_failed(snapshot) {
            body.push_str("The commit before it is still live.\n\n");
        }
    }
    if !gone && snapshot.run.as_ref().is_some_and(|run| run.cause == run::Cause::MachineLost) {
        body.push_str(
            "The machine before this one was lost or fell silent: the preview began anew, without its data.\n\n",
        );
    }
    if gone && let Some(reason) = &env.reason {
        body.push_str(&format!("{}.\n\n", markdown::escape(reason, 200)));
    }
    let commit = markdown::code(env.pr.sha.get(..12).unwrap_or(&env.pr.sha), 12);
    body.push_str(&format!("Commit {commit} of {}", markdown::code(&env.pr.branch, 100)));
    if let Some((run, live)) = snapshot.run.as_ref().and_then(|run| Some((run, run.live_at?))) {
        let secs = (live - run.created_at).num_milliseconds();
        body.push_str(&format!(", ready in {}.{} s", secs / 1000, (secs % 1000) / 100));
    }
    let made = snapshot.machine().filter(|machine| !gone && machine.placed_at.is_some());
    let place = made.and_then(|machine| offering::story(machine.offering.as_ref(), &machine.tried));
    if let Some(place) = place {
        body.push_str(&format!(", on {}", markdown::escape(&place, 300)));
    }
    if !gone && state == State::Live {
        body.push_str(&format!(", kept until {}", env.expires_at.format("%Y-%m-%d %H:%M UTC")));
    }
    body.push_str(".\n");
    if state == State::Destroyed && !snapshot.costs.is_empty() {
        // Currencies have no sum.
        let costs: Vec<String> = snapshot.costs.iter().map(Money::to_string).collect();
        body.push_str(&format!("\nIts machines cost {}.\n", costs.join(" and ")));
    }
    body
}

fn failed(failure: &RunFailure) -> String {
    let mut text = format!("Phase {}", markdown::code(&failure.phase, 40));
    if let Some(service) = &failure.service {
        text.push_str(&format!(", service {}", markdown::code(service, 60)));
    }
    if let Some(code) = failure.exit_code {
        text.push_str(&format!(", exit code {code}"));
    }
    text.push_str(&format!(" ({}): {}\n\n", failure.code.as_str(), markdown::escape(&failure.message, 800)));
    if !failure.log_tail.is_empty() {
        text.push_str(&format!("{}\n\n", markdown::block(&failure.log_tail, 4000)));
    }
    text
}

fn check(context: &Context, snapshot: &Snapshot, state: State) -> Check {
    let failure = snapshot.run.as_ref().and_then(|run| run.failure.as_ref());
    let finished = snapshot.run.as_ref().filter(|run| run.state.is_final()).map(|run| run.state);
    let status = match (finished, state) {
        (Some(run::State::Succeeded), _) => CheckStatus::Completed(Conclusion::Success),
        (Some(run::State::Failed), _) => CheckStatus::Completed(Conclusion::Failure),
        (Some(_), _) => CheckStatus::Completed(Conclusion::Cancelled),
        (None, State::Queued) => CheckStatus::Queued,
        (None, _) => CheckStatus::InProgress,
    };
    // It was brought live, and its machine is lost since.
    let lost = finished == Some(run::State::Succeeded) && state == State::Failed;
    let status = if lost { CheckStatus::Completed(Conclusion::Failure) } else { status };
    let failure = failure.or_else(|| self::failure(snapshot).filter(|_| lost));
    let live = finished == Some(run::State::Succeeded) && !lost;
    Check {
        name: "Stagely preview".to_owned(),
        external_id: snapshot.env.id.to_string(),
        status,
        title: if live { "Live".to_owned() } else { phrase(state).to_owned() },
        summary: failure.map_or_else(|| phrase(state).to_owned(), failed),
        details_url: live.then(|| context.preview_url.of(&root_host(context, &snapshot.env))),
    }
}

fn deployment(context: &Context, snapshot: &Snapshot, state: State) -> Deployment {
    let finished = snapshot.run.as_ref().filter(|run| run.state.is_final()).map(|run| run.state);
    let live = finished == Some(run::State::Succeeded) && state != State::Failed;
    let state = match finished {
        Some(run::State::Succeeded) if live => DeploymentState::Success,
        Some(_) => DeploymentState::Failure,
        None => DeploymentState::InProgress,
    };
    Deployment {
        environment: format!("preview/pr-{}", snapshot.env.pr.number),
        state,
        url: live.then(|| context.preview_url.of(&root_host(context, &snapshot.env))),
        log_url: None,
    }
}

const fn is_gone(state: State) -> bool {
    matches!(state, State::Destroying | State::Destroyed)
}

/// What the check or the deployment of a commit says once another commit took its place or nothing is to be left;
/// `None` when it goes on saying what it says: how a check ended stays true, and what is served is deployed.
fn ended(post: &Post, state: State) -> Option<serde_json::Value> {
    let word = if is_gone(state) { "Removed" } else { "Superseded by a newer commit" };
    match post.kind {
        Kind::Comment => None,
        Kind::Check => {
            let check: Check = serde_json::from_value(post.wanted.clone()).ok()?;
            let is_open = !matches!(check.status, CheckStatus::Completed(_));
            let status = CheckStatus::Completed(Conclusion::Cancelled);
            let ended = Check { status, title: word.to_owned(), summary: word.to_owned(), ..check };
            serde_json::to_value(ended).ok().filter(|_| is_open)
        }
        Kind::Deployment => {
            let deployment: Deployment = serde_json::from_value(post.wanted.clone()).ok()?;
            let ended = Deployment { state: DeploymentState::Inactive, url: None, ..deployment };
            serde_json::to_value(ended).ok().filter(|_| is_gone(state) || state == State::Live)
        }
    }
}
