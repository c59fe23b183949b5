//! Reading a commit: `stagely.yaml`, the compose files, and what they mean together.

use stagely_domain::compose;
use stagely_domain::failure::{Code, Failure};
use stagely_domain::spec::{self, FILE, Resolved, Spec};
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
    let spec = match text.as_deref().map_or_else(|| Ok(Spec::default()), |text| spec::parse(text, FILE)) {
        Ok(spec) => spec,
        Err(diagnostics) => return Ok(Err(mistakes(Code::ConfigInvalid, &diagnostics))),
    };
    let mut services: Vec<compose::Service> = Vec::new();
    for path in &spec.preview.compose {
        let Some(bytes) = context.forge.file_at(repo, sha, path.as_str()).await.map_err(hosted(doing))? else {
            let message = format!("the commit has no {path}: add it, or name yours with `preview.compose` in {FILE}");
            return Ok(Err(failure(Code::ComposeInvalid, "read", message)));
        };
        match compose::parse(&String::from_utf8_lossy(&bytes), path) {
            Ok(found) => merge(&mut services, found),
            Err(diagnostics) => return Ok(Err(mistakes(Code::ComposeInvalid, &diagnostics))),
        }
    }
    Ok(spec::resolve(spec, &services, text.as_deref())
        .map_err(|diagnostics| mistakes(Code::ConfigInvalid, &diagnostics)))
}

/// A later file is laid over an earlier one.
fn merge(services: &mut Vec<compose::Service>, later: Vec<compose::Service>) {
    for service in later {
        match services.iter_mut().find(|known| known.name == service.name) {
            Some(known) => {
                known.build = service.build.or(known.build.take());
                known.ports.extend(service.ports);
            }
            None => services.push(service),
        }
    }
}
