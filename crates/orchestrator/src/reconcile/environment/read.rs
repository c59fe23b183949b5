//! Reading a commit: `stagely.yaml`, the compose files, and what they mean together.

use stagely_domain::compose;
use stagely_domain::failure::{Code, Failure};
use stagely_domain::spec::{self, FILE, Resolved};
use stagely_forge::Repo;
use stagely_reconcile::Failure as StepFailure;

use crate::context::{Context, hosted};
use crate::failures::{failure, mistakes};

/// What the commit asks for; the inner error is the author's to mend.
pub async fn commit(context: &Context, repo: &Repo, sha: &str) -> Result<Result<Resolved, Failure>, StepFailure> {
    let doing = "read the commit";
    let file = match context.forge.file_at(repo, sha, FILE).await {
        Ok(file) => file,
        Err(error) if error.kind == stagely_forge::ErrorKind::Invalid => {
            return Ok(Err(failure(Code::ConfigInvalid, "read", format!("{FILE}: {}", error.message))));
        }
        Err(error) => return Err(hosted(doing)(error)),
    };
    let text = match file.map(String::from_utf8).transpose() {
        Ok(text) => text,
        Err(_) => return Ok(Err(failure(Code::ConfigInvalid, "read", format!("{FILE} is not UTF-8 text")))),
    };
    let reading = text.map(|text| spec::read(&text, FILE)).unwrap_or_default();
    let mut files = compose::Files::default();
    for path in reading.compose() {
        let bytes = context.forge.file_at(repo, sha, path.as_str()).await.map_err(hosted(doing))?;
        files.add(path, bytes.as_deref().map(String::from_utf8_lossy).as_deref());
    }
    Ok(spec::resolve(reading, &files).map_err(|diagnostics| {
        let is_ours = diagnostics.iter().any(|diagnostic| diagnostic.file == FILE);
        mistakes(if is_ours { Code::ConfigInvalid } else { Code::ComposeInvalid }, &diagnostics)
    }))
}
