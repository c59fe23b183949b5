//! What a change of an account must not lose sight of: the machines and golden images that its provider has. What is not
//! seen any more counts as gone, and costs on.

use stagely_domain::account::is_in;
use stagely_store::Tx;
use stagely_store::accounts::Uses;
use stagely_store::tenants::CloudAccount;

use crate::error::{ApiError, Result};

/// A change that the provider has nothing against.
pub(super) struct Change {
    pub before: CloudAccount,
    pub after: CloudAccount,
    pub sight: Sight,
}

/// Whether the account's credentials will show what those before them showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// They are the same, or show one of its machines or images.
    Kept,
    /// They show none.
    Lost,
    /// Whoever asks says that there is nothing to be seen, and takes what follows.
    Waived,
}

impl Change {
    /// Refuses what would lose a machine or an image. The account is locked, so that none begins to be made meanwhile.
    pub(super) async fn check(&self, tx: &Tx) -> Result<()> {
        let uses = tx.cloud_account_uses(self.after.id).await?;
        if self.sight == Sight::Waived || uses.made + uses.captured == 0 {
            return Ok(());
        }
        let (before, after) = (self.before.settings.all_regions(), self.after.settings.all_regions());
        if let Some(first) = before.first().filter(|first| Some(*first) != after.first()) {
            return Err(another_first(first, &uses));
        }
        let places = tx.list_account_places(self.after.id).await?;
        let is_used = |region: &&String| {
            places.iter().any(|place| place.as_deref().is_none_or(|place| is_in(place, region.as_str())))
        };
        if let Some(region) = before.iter().filter(|region| !after.contains(region)).find(is_used) {
            return Err(left_out(region));
        }
        if self.sight == Sight::Lost { Err(not_shown(&uses)) } else { Ok(()) }
    }
}

fn not_shown(uses: &Uses) -> ApiError {
    in_use(format!(
        "the account has {}, and the provider shows none of them to the new credentials: they would stay and cost, with \
         nobody to remove them. Use credentials of the same account, or destroy the environments and remove the images \
         first. Only if they are gone for certain, send `abandon_machines`",
        what(uses)
    ))
}

/// The ids of what is in the first region do not say so.
fn another_first(first: &str, uses: &Uses) -> ApiError {
    in_use(format!(
        "the account has {}, and those in {first} are known by being in the first region: leave {first} the first and say \
         the order in `settings.locations`, or destroy the environments and remove the images first. Only if they are gone \
         for certain, send `abandon_machines`",
        what(uses)
    ))
}

fn left_out(region: &str) -> ApiError {
    in_use(format!(
        "machines or golden images of the account may be in {region}, and would not be seen any more: they would stay and \
         cost, with nobody to remove them. Leave {region} among the regions and out of `settings.locations`, so that no new \
         machines are made there, until those environments are destroyed and those images removed. Only if they are gone for \
         certain, send `abandon_machines`"
    ))
}

fn in_use(detail: String) -> ApiError {
    ApiError::Conflict { code: "in_use", detail }
}

/// What may be at the provider, in words.
fn what(uses: &Uses) -> String {
    let machines = (uses.made > 0).then(|| format!("{} machines", uses.made));
    let images = (uses.captured > 0).then(|| format!("{} golden images", uses.captured));
    machines.into_iter().chain(images).collect::<Vec<String>>().join(" and ")
}
