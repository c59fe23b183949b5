//! Images of machines.

use stagely_domain::id::ImageId;
use stagely_domain::machine::Role;

use super::failure::expect;
use super::{Failure, Trial};
use crate::{Bake, CaptureProgress, CaptureRequest, CreateRequest};

pub(super) async fn an_image_is_made_of_a_machine_used_and_removed(trial: &Trial<'_>) -> Result<(), Failure> {
    let mut request = CreateRequest { role: Role::Bake, bake: Some(Bake::default()), ..trial.request() };
    request.config.role = Role::Bake;
    let created = trial.create(&mut request).await?;
    let capture = CaptureRequest { image: ImageId::generate(), installation: trial.installation, machine: created.id };
    let ready = std::sync::Mutex::new(None);
    let made = || async {
        let progress = trial.cloud.capture(&capture).await?;
        let CaptureProgress::Ready(image) = progress else { return Ok(false) };
        *ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(image);
        Ok(true)
    };
    trial.repeat("make an image of a machine", made).await?;
    // Asked again it is the same.
    let first = ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    trial.repeat("make the same image again", made).await?;
    let image = ready.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    expect(image == first, "make the same image again", &format!("{first:?}"), || format!("{image:?}"))?;
    trial.delete(&capture.machine).await?;
    let usual = trial.request();
    let mut copy = CreateRequest { image: image.map(|image| image.reference), ..usual };
    let copied = trial.create(&mut copy).await?;
    trial.until_running(copy.machine).await?;
    trial.delete(&copied.id).await?;
    let residues = trial.patiently(|| trial.cloud.list_residue(trial.installation)).await;
    let residues = residues.map_err(|error| Failure::refused("list what is left over", &error))?.items;
    let (parts, others): (Vec<_>, Vec<_>) = residues.iter().partition(|item| item.image == Some(capture.image));
    expect(!parts.is_empty(), "list what is left over", "the image", || format!("{others:?}"))
}
