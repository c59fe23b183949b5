//! What a build would read, by git's own names: equal names, equal images.

use stagely_domain::spec::Target;
use stagely_forge::{EntryKind, Repo};

use crate::context::Context;

/// The name of each target's context at a commit, in their order. `None` where it does not tell all that the build
/// reads: builders take a Dockerfile from outside the context too, or through a link. Without an answer of the git host
/// nothing is known, and everything is built.
pub async fn of_targets(context: &Context, repo: &Repo, sha: &str, targets: &[Target]) -> Vec<Option<String>> {
    let paths: Vec<String> = targets
        .iter()
        .flat_map(|target| [target.context.to_string(), format!("{}/{}", target.context, target.dockerfile)])
        .collect();
    let entries = context.forge.entries_at(repo, sha, &paths).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what builds would read is not known: every image of {sha} is built");
        Vec::new()
    });
    (0..targets.len())
        .map(|index| {
            let directory = entries.get(2 * index)?.as_ref().filter(|entry| entry.kind == EntryKind::Directory)?;
            let dockerfile = entries.get(2 * index + 1)?.as_ref()?;
            (dockerfile.kind == EntryKind::File).then(|| directory.id.clone())
        })
        .collect()
}
