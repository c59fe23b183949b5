//! What the pull request says of an environment: the comment, the check, the deployment.

use serde_json::{Value, json};
use stagely_domain::cost::Money;
use stagely_domain::environment::State;
use stagely_domain::failure::Failure;
use stagely_domain::offering;
use stagely_domain::run;
use stagely_forge::{Check, CheckStatus, Conclusion, Deployment, DeploymentState, markdown};
use stagely_store::posts::{Kind, Post};

use super::{deploy_failed, failure, phrase, root_host, routes};
use crate::context::Context;
use crate::reconcile::environment::plan::Snapshot;

/// What each post should say: its kind, the commit that it is about (empty for the comment), and its content. `earlier`
/// is what was asked for until now.
pub fn wanted(
    context: &Context,
    snapshot: &Snapshot,
    state: State,
    earlier: &[Post],
) -> serde_json::Result<Vec<(Kind, String, Value)>> {
    let sha = &snapshot.env.pr.sha;
    let is_gone = is_gone(state);
    let mut posts = vec![(Kind::Comment, String::new(), json!({"body": comment(context, snapshot, state)}))];
    if !is_gone {
        posts.push((Kind::Check, sha.clone(), serde_json::to_value(check(context, snapshot, state))?));
        if snapshot.run.as_ref().is_some_and(|run| run.spec.is_some()) {
            posts.push((Kind::Deployment, sha.clone(), serde_json::to_value(deployment(context, snapshot, state))?));
        }
    }
    for post in earlier.iter().filter(|post| is_gone || post.sha != *sha) {
        posts.extend(ended(post, state).map(|wanted| (post.kind, post.sha.clone(), wanted)));
    }
    Ok(posts)
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
    let gone = is_gone(state);
    if !gone && (matches!(state, State::Live | State::Asleep) || snapshot.serves()) {
        let url = context.preview_url.of(&root_host(context, env));
        body.push_str(&format!("**{url}**\n\n"));
        let root = root_host(context, env);
        for entry in routes::open_entries(snapshot).filter(|entry| entry.host != root) {
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

fn failed(failure: &Failure) -> String {
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
    let failure = failure.or_else(|| super::failure(snapshot).filter(|_| lost));
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

/// What the check or the deployment of a commit says once another commit took its place or nothing is to be left;
/// `None` when it goes on saying what it says: how a check ended stays true, and what is served is deployed.
fn ended(post: &Post, state: State) -> Option<Value> {
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

const fn is_gone(state: State) -> bool {
    matches!(state, State::Destroying | State::Destroyed)
}
