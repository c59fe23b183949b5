//! In which of the team's accounts an environment's machine is made.

use stagely_domain::failure::{Code, Failure};
use stagely_domain::id::{CloudAccountId, TeamId};
use stagely_domain::machine::Arch;
use stagely_domain::spec::Preview;
use stagely_reconcile::StepError;
use stagely_store::Scope;
use stagely_store::environments::Environment;

use crate::context::{Context, store_error};
use crate::failures::failure;

const DOING: &str = "choose a cloud account";

/// The account that `preview.provider` names, or else the project's; or what the run is told.
pub async fn of(
    context: &Context,
    env: &Environment,
    preview: &Preview,
) -> Result<Result<CloudAccountId, Failure>, StepError> {
    let project = context.store.get_project(&Scope::system(DOING), env.project).await.map_err(store_error(DOING))?;
    let accounts = context.store.list_cloud_accounts(&Scope::system(DOING)).await.map_err(store_error(DOING))?;
    let account = match &preview.provider {
        Some(name) => accounts.iter().find(|account| account.team == env.team && account.name == *name),
        None => accounts.iter().find(|account| Some(account.id) == project.account),
    };
    let refused = |message: String| Ok(Err(failure(Code::MachineFailed, "boot", message)));
    let Some(account) = account else {
        return refused(match &preview.provider {
            Some(name) => format!("the team has no cloud account `{name}` (preview.provider)"),
            None => "the project has no cloud account: choose one in its settings".to_owned(),
        });
    };
    match lacks(context, env.team, account.id, preview.arch).await? {
        Some(message) => refused(message),
        None => Ok(Ok(account.id)),
    }
}

/// Says why there can be no machine with this processor: the account's provider makes none, and which others of the team do;
/// or there is no agent for it.
pub async fn lacks(
    context: &Context,
    team: TeamId,
    account: CloudAccountId,
    arch: Arch,
) -> Result<Option<String>, StepError> {
    if context.clouds.makes(account, arch).await != Some(false) {
        return Ok(context.config.agent_binaries.of(arch).err());
    }
    let accounts = context.store.list_cloud_accounts(&Scope::system(DOING)).await.map_err(store_error(DOING))?;
    let (mut name, mut others) = (String::new(), Vec::new());
    for other in accounts.into_iter().filter(|other| other.team == team) {
        if other.id == account {
            name = other.name;
        } else if context.clouds.makes(other.id, arch).await == Some(true) {
            others.push(format!("`{}`", other.name));
        }
    }
    let fix = match others.as_slice() {
        [] => "nor does any other of the team: add one at a provider that has, such as AWS or Hetzner Cloud".to_owned(),
        others => format!("of the team's accounts {} do", others.join(", ")),
    };
    Ok(Some(format!("the cloud account `{name}` has no {arch} machines, {fix}")))
}
