//! What members ask of golden images. Each changes a wish; the reconciler of images does the rest.

use stagely_cloud::Capabilities;
use stagely_domain::id::{ImageId, TeamId};
use stagely_domain::image::check_base_images;
use stagely_domain::machine::{Arch, Provider};
use stagely_reconcile::StepError;
use stagely_store::images::NewImage;
use stagely_store::work::kind;
use stagely_store::{Scope, StoreError};

use crate::context::Context;

/// Why a command was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Something that it names is not there, or not the team's.
    #[error("no such {0}")]
    NotThere(&'static str),
    /// The account cannot do it; the sentence says what can be done.
    #[error("{0}")]
    Unable(String),
    /// What is asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The account could not be opened.
    #[error("open the account")]
    Account(#[source] StepError),
    /// The database.
    #[error("use the database")]
    Store(#[source] StoreError),
}

/// Wishes for an image. The same id again changes nothing.
pub async fn bake(context: &Context, new: &NewImage) -> Result<(), Refused> {
    check_base_images(&new.base_images).map_err(Refused::Invalid)?;
    let row = context.store.find_cloud_account(&Scope::system("bake an image"), new.account).await;
    let row = row.map_err(Refused::Store)?.filter(|account| account.team == new.team);
    let row = row.ok_or(Refused::NotThere("cloud account"))?;
    let account = context.clouds.of(new.account).await.map_err(Refused::Account)?;
    if let Some(why) = refusal(row.kind, account.cloud.capabilities(), new.arch) {
        return Err(Refused::Unable(why));
    }
    context.config.agent_binaries.of(new.arch).map_err(Refused::Unable)?;
    let tx = context.store.begin().await.map_err(Refused::Store)?;
    // Nobody deletes the account meanwhile.
    match tx.lock_cloud_account(&Scope::system("bake an image"), new.account).await {
        Err(StoreError::NotFound(what)) => return Err(Refused::NotThere(what)),
        locked => locked.map_err(Refused::Store)?,
    }
    let _ = tx.insert_image(new).await.map_err(Refused::Store)?;
    tx.wake(kind::IMAGE, new.id.uuid()).await.map_err(Refused::Store)?;
    tx.commit().await.map_err(Refused::Store)
}

/// Wishes an image away. One that is on its way out already stays so.
pub async fn drop(context: &Context, team: TeamId, id: ImageId) -> Result<(), Refused> {
    match context.store.get_image(&Scope::system("remove an image"), id).await {
        Ok(image) if image.team == team => {}
        Ok(_) | Err(StoreError::NotFound(_)) => return Err(Refused::NotThere("image")),
        Err(error) => return Err(Refused::Store(error)),
    }
    let tx = context.store.begin().await.map_err(Refused::Store)?;
    let _ = tx.wish_image_absent(id).await.map_err(Refused::Store)?;
    tx.wake(kind::IMAGE, id.uuid()).await.map_err(Refused::Store)?;
    tx.commit().await.map_err(Refused::Store)
}

/// Why such an account bakes no such image, and what can be done.
fn refusal(provider: Provider, can: Capabilities, arch: Arch) -> Option<String> {
    if provider == Provider::Qemu && !can.bake {
        let why = "a `qemu` account has nothing to bake: its machines are copies of a template with Docker and the agent, \
                   which is made by itself; choose an account of another kind";
        return Some(why.to_owned());
    }
    if !can.bake {
        return Some(
            "this account's provider makes no images of machines: its machines boot the stock image".to_owned(),
        );
    }
    if !can.arches.contains(&arch) {
        let has: Vec<String> = can.arches.iter().map(ToString::to_string).collect();
        let has = has.join(" and ");
        return Some(format!(
            "this account has no {arch} machines to bake on: ask for {has}, or choose another account"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use stagely_cloud::Capabilities;
    use stagely_domain::machine::{Arch, Provider};

    use super::refusal;

    #[test]
    fn an_account_that_cannot_bake_says_what_can_be_done() {
        let can =
            |bake, arches| Capabilities { hibernate: true, power_off_deletes: false, arches, bake, user_data_max: 0 };
        let both: &[Arch] = &[Arch::Amd64, Arch::Arm64];
        assert_eq!(refusal(Provider::Hetzner, can(true, both), Arch::Arm64), None);
        let told = refusal(Provider::Qemu, can(false, both), Arch::Amd64).unwrap();
        assert!(told.contains("made by itself"), "{told}");
        let told = refusal(Provider::Digitalocean, can(true, &[Arch::Amd64]), Arch::Arm64).unwrap();
        assert!(told.contains("no arm64 machines") && told.contains("ask for amd64"), "{told}");
        assert!(refusal(Provider::Aws, can(false, both), Arch::Amd64).is_some());
    }
}
