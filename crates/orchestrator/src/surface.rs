//! What people see of an environment: routes and their pages, the comment, the check, the deployment. Everything is
//! derived from the rows each time; what has not changed is not written.

mod posts;
pub mod routes;

use stagely_domain::environment::State;
use stagely_domain::failure::Failure;
use stagely_reconcile::{ErrorClass, StepError};
use stagely_store::environments::Environment;
use stagely_store::work::kind;
use stagely_store::{Presence, Tx};

use crate::context::{Context, store_error};
use crate::reconcile::environment::plan::Snapshot;

/// The root URL's host.
pub fn root_host(context: &Context, env: &Environment) -> String {
    format!("{}.{}", env.hash, context.preview_domain)
}

/// Writes routes and posts as they should be for `state`, and wakes who brings them out.
pub async fn write(context: &Context, tx: &Tx, snapshot: &Snapshot, state: State) -> Result<(), StepError> {
    let doing = "write what people see";
    let env = &snapshot.env;
    for entry in routes::changed(context, snapshot, state) {
        tx.write_route(env.team, env.generation, &entry).await.map_err(store_error(doing))?;
        tx.wake(kind::ROUTE, env.id.uuid()).await.map_err(store_error(doing))?;
    }
    let earlier = context.store.list_posts(env.id).await.map_err(store_error(doing))?;
    let posts = posts::wanted(context, snapshot, state, &earlier)
        .map_err(|error| StepError::new(ErrorClass::Permanent, doing, error))?;
    for (kind_of_post, sha, wanted) in posts {
        let changed = tx.want_post(env.team, env.id, kind_of_post, &sha, &wanted).await.map_err(store_error(doing))?;
        if let Some(post) = changed {
            tx.wake(kind::POST, post.uuid()).await.map_err(store_error(doing))?;
        }
    }
    Ok(())
}

/// Why the environment stands where it stands, in a sentence.
pub fn reason(snapshot: &Snapshot) -> Option<String> {
    let failed = failure(snapshot).map(|failure| failure.message.clone());
    failed.or_else(|| snapshot.env.reason.clone())
}

/// What went wrong: with the run, or after it with the machine that was live.
fn failure(snapshot: &Snapshot) -> Option<&Failure> {
    let of_run = snapshot.run.as_ref().and_then(|run| run.failure.as_ref());
    let is_kept = snapshot.env.desired == Presence::Present;
    let lost = snapshot.newest.as_ref().filter(|_| is_kept && snapshot.machine().is_none());
    of_run.or_else(|| lost.and_then(|machine| machine.failure.as_ref()))
}

/// Whether the failure came after the agent had begun to replace what was live.
fn deploy_failed(snapshot: &Snapshot) -> bool {
    let failure = snapshot.run.as_ref().and_then(|run| run.failure.as_ref());
    failure.is_some_and(|failure| {
        !matches!(failure.phase.as_str(), "read" | "build" | "push" | "boot" | "checkout" | "pull")
    })
}

/// The state in the words of the comment, the check and the pages.
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
