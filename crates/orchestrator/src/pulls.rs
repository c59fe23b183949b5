//! From a pull request as it is now to the wish for its environment. Whoever noticed something (a delivery, a
//! scan, a timer) only says which pull request; nothing of what it was told is believed.

use ring::rand::{SecureRandom, SystemRandom};
use stagely_domain::id::EnvironmentId;
use stagely_domain::spec::{self, FILE, Facts, Triggers};
use stagely_forge::{PullRequest as Found, PullRequestState, Repo};
use stagely_reconcile::{ErrorClass, StepError};
use stagely_store::environments::{Environment, NewEnvironment, PullRequest};
use stagely_store::tenants::Project;
use stagely_store::work::kind;
use stagely_store::{Outcome, Presence, Tx};

use crate::context::{Context, forge_error, store_error};

/// A week, until the commit's own `stagely.yaml` was read.
const TTL_SECS: i64 = 7 * 24 * 3600;

/// What was concluded, for the delivery's record.
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The wish is another one now.
    Applied,
    /// Nothing is to be changed.
    Ignored,
    /// What is wished is to be looked at again once the environment is gone.
    Later,
}

/// A pull request as the git host showed it.
pub struct Seen {
    /// The environment's wish before the git host was asked. A newer one may know more than this answer.
    before: Option<(EnvironmentId, i64)>,
    /// `None` when there is no such pull request.
    pull: Option<Found>,
    /// Why its `stagely.yaml` wants no preview for it.
    refusal: Option<String>,
}

/// Reads the pull request, and its head commit's word on whether it gets a preview.
pub async fn read(context: &Context, project: &Project, number: i64) -> Result<Seen, StepError> {
    let doing = "read a pull request";
    let known = context.store.find_environment(project.id, number).await.map_err(store_error(doing))?;
    let before = known.map(|env| (env.id, env.generation));
    let repo: Repo = project.repo.parse().map_err(|error| StepError::new(ErrorClass::Permanent, doing, error))?;
    match context.forge.pull_request(&repo, number).await.map_err(forge_error(doing))? {
        Some(pull) => Ok(Seen { before, ..evaluate(context, &repo, pull).await? }),
        None => Ok(Seen { before, pull: None, refusal: None }),
    }
}

/// Asks the head commit of a pull request that was just read, and had no environment before that.
pub async fn evaluate(context: &Context, repo: &Repo, pull: Found) -> Result<Seen, StepError> {
    let doing = "read when a pull request gets a preview";
    if pull.state == PullRequestState::Closed {
        return Ok(Seen { before: None, pull: Some(pull), refusal: None });
    }
    let triggers = match context.forge.file_at(repo, &pull.sha, FILE).await {
        Ok(file) => {
            let spec =
                file.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| spec::parse(&text, FILE).ok());
            // What is wrong with the file is told on the pull request by the run, so there has to be one.
            spec.map(|spec| spec.triggers).unwrap_or_default()
        }
        Err(error) if error.kind == stagely_forge::ErrorKind::Invalid => Triggers::default(),
        Err(error) => return Err(forge_error(doing)(error)),
    };
    let changed = if triggers.look_at_paths() {
        match context.forge.changed_paths(repo, pull.number).await {
            Ok(changed) => Some(changed),
            // A change that is too large to be listed touches what it likes.
            Err(error) if error.kind == stagely_forge::ErrorKind::Invalid => None,
            Err(error) => return Err(forge_error(doing)(error)),
        }
    } else {
        None
    };
    let refusal = triggers.refusal(&Facts {
        base: &pull.base,
        labels: &pull.labels,
        draft: pull.draft,
        from_fork: pull.from_fork,
        changed: changed.as_deref(),
    });
    Ok(Seen { before: None, pull: Some(pull), refusal })
}

/// Brings the wish in line with the pull request that was just read, inside `tx`. The caller commits. Fails when the
/// wish was changed since: two deliveries may be at work at the same time, and the later one may have read earlier.
pub async fn apply(
    context: &Context,
    tx: &Tx,
    project: &Project,
    number: i64,
    seen: Seen,
) -> Result<Verdict, StepError> {
    let doing = "apply a pull request";
    let known = context.store.find_environment(project.id, number).await.map_err(store_error(doing))?;
    let applied = |reason: &str| Verdict { decision: Decision::Applied, reason: reason.to_owned() };
    let ignored = |reason: &str| Verdict { decision: Decision::Ignored, reason: reason.to_owned() };
    if known.as_ref().map(|env| (env.id, env.generation)) != seen.before {
        return Err(changed_meanwhile(doing));
    }
    let refusal = seen.refusal;
    let Some(pull) = seen.pull else {
        return match known {
            Some(env) => close(tx, &env, "the pull request is not there any more").await,
            None => Ok(ignored("the git host has no such pull request")),
        };
    };
    let facts = PullRequest {
        number,
        title: pull.title,
        branch: pull.branch,
        author: pull.author,
        url: pull.url,
        sha: pull.sha,
    };
    if pull.state == PullRequestState::Closed {
        tx.forget_removal(project.id, number).await.map_err(store_error(doing))?;
    }
    match (pull.state, known) {
        (PullRequestState::Closed, Some(env)) => close(tx, &env, "the pull request was closed").await,
        (PullRequestState::Closed, None) => Ok(ignored("the pull request is closed")),
        (PullRequestState::Open, Some(env)) if env.desired == Presence::Absent => {
            Ok(Verdict { decision: Decision::Later, reason: "the environment has to be gone first".to_owned() })
        }
        (PullRequestState::Open, Some(env)) if refusal.is_some() => {
            close(tx, &env, refusal.as_deref().unwrap_or_default()).await
        }
        (PullRequestState::Open, Some(env)) if env.pr.sha == facts.sha => {
            Ok(ignored("the environment is at this commit already"))
        }
        (PullRequestState::Open, Some(env)) => {
            let outcome = tx.wish_commit(env.id, env.generation, &facts).await.map_err(store_error(doing))?;
            if outcome == Outcome::Stale {
                return Err(changed_meanwhile(doing));
            }
            tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.map_err(store_error(doing))?;
            Ok(applied("a new commit"))
        }
        (PullRequestState::Open, None) if pull.from_fork => {
            Ok(ignored("pull requests from forks need approval, which this version does not offer yet"))
        }
        (PullRequestState::Open, None) if refusal.is_some() => Ok(ignored(refusal.as_deref().unwrap_or_default())),
        (PullRequestState::Open, None)
            if context.store.stays_gone(project.id, number, &facts.sha).await.map_err(store_error(doing))? =>
        {
            Ok(ignored("its environment was removed at this commit: push another, or close it and open it again"))
        }
        (PullRequestState::Open, None) => {
            let id = EnvironmentId::generate();
            let new = NewEnvironment {
                id,
                team: project.team,
                project: project.id,
                pr: facts,
                hash: hash()?,
                ttl_secs: TTL_SECS,
            };
            tx.insert_environment(&new).await.map_err(store_error(doing))?;
            tx.wake(kind::ENVIRONMENT, id.uuid()).await.map_err(store_error(doing))?;
            Ok(applied("a new environment"))
        }
    }
}

fn changed_meanwhile(doing: &'static str) -> StepError {
    StepError::new(ErrorClass::Transient, doing, "the environment changed meanwhile")
}

async fn close(tx: &Tx, env: &Environment, reason: &str) -> Result<Verdict, StepError> {
    let doing = "close an environment";
    if env.desired == Presence::Absent {
        let reason = "the environment is being removed already".to_owned();
        return Ok(Verdict { decision: Decision::Ignored, reason });
    }
    if tx.wish_absent(env.id, env.generation, reason).await.map_err(store_error(doing))? == Outcome::Stale {
        return Err(changed_meanwhile(doing));
    }
    tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.map_err(store_error(doing))?;
    Ok(Verdict { decision: Decision::Applied, reason: reason.to_owned() })
}

/// Twelve characters without look-alikes: 59 random bits, so that nobody guesses a preview's host.
fn hash() -> Result<String, StepError> {
    const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
    let random = SystemRandom::new();
    let mut hash = String::new();
    while hash.len() < 12 {
        let mut byte = [0];
        random
            .fill(&mut byte)
            .map_err(|_| StepError::new(ErrorClass::Transient, "name an environment", "no randomness"))?;
        // 248 is the largest multiple of 31 below 256: what is above would favour some letters.
        if byte[0] < 248 {
            hash.push(char::from(ALPHABET[usize::from(byte[0] % 31)]));
        }
    }
    Ok(hash)
}
