//! Reading a commit: `stagely.yaml`, the compose files, and what they mean together.

use stagely_domain::compose;
use stagely_domain::failure::{Code, Failure};
use stagely_domain::spec::{self, FILE, Resolved};
use stagely_forge::{ErrorKind, Repo};
use stagely_reconcile::StepError;

use crate::context::{Context, forge_error};
use crate::failures::{failure, mistakes};

/// What the commit asks for; the inner error is the author's to mend.
pub async fn commit(context: &Context, repo: &Repo, sha: &str) -> Result<Result<Resolved, Failure>, StepError> {
    let file = match read(context, repo, sha, FILE, Code::ConfigInvalid).await? {
        Ok(file) => file,
        Err(failure) => return Ok(Err(failure)),
    };
    let text = match file.map(String::from_utf8).transpose() {
        Ok(text) => text,
        Err(_) => return Ok(Err(failure(Code::ConfigInvalid, "read", format!("{FILE} is not UTF-8 text")))),
    };
    let reading = text.map(|text| spec::read(&text, FILE)).unwrap_or_default();
    let mut files = compose::Files::default();
    for path in reading.compose() {
        match read(context, repo, sha, path.as_str(), Code::ComposeInvalid).await? {
            Ok(bytes) => files.add(path, bytes.as_deref().map(String::from_utf8_lossy).as_deref()),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    Ok(spec::resolve(reading, &files).map_err(|diagnostics| {
        let is_ours = diagnostics.iter().any(|diagnostic| diagnostic.file == FILE);
        mistakes(if is_ours { Code::ConfigInvalid } else { Code::ComposeInvalid }, &diagnostics)
    }))
}

/// A file of the commit; one that the host has and does not read is a failure of `code`.
async fn read(
    context: &Context,
    repo: &Repo,
    sha: &str,
    path: &str,
    code: Code,
) -> Result<Result<Option<Vec<u8>>, Failure>, StepError> {
    match context.forge.file_at(repo, sha, path).await {
        Ok(file) => Ok(Ok(file)),
        Err(error) if error.kind == ErrorKind::Invalid => {
            Ok(Err(failure(code, "read", format!("{path}: {}", error.message))))
        }
        Err(error) => Err(forge_error("read the commit")(error)),
    }
}
