//! Images of machines that were made to bake. The name of an image is unique in a region of an account, so that it is the
//! idempotency of the call which makes it. Image and snapshots have their tags from that call on.

use aws_sdk_ec2::types::{Filter, Image as Found, ImageState, Instance};

use crate::aws::Aws;
use crate::aws::actions::{CREATE_IMAGE, DEREGISTER_IMAGE, DESCRIBE_IMAGES};
use crate::aws::machine::{owned, state};
use crate::aws::refusal::Refused;
use crate::aws::tags;
use crate::{CaptureProgress, CaptureRequest, CloudError, ErrorKind, Image, Result};

const DOING: &str = "make an image of a machine";
/// Why a machine stopped that has powered itself off.
const BY_ITSELF: &str = "Client.InstanceInitiatedShutdown";

impl Aws {
    /// One step towards the image.
    pub(super) async fn image_of(&self, request: &CaptureRequest) -> Result<CaptureProgress> {
        if let Some(found) = self.made_image(request).await? {
            return self.progress(&found).await;
        }
        let instance = self.present(DOING, &request.machine.0).await?;
        let tags = owned(DOING, &instance)?;
        if tags.installation != request.installation || !tags.bakes() {
            return Err(invalid("it was not made by this installation to make an image of it"));
        }
        if state(&instance) != "stopped" {
            return Ok(CaptureProgress::InProgress);
        }
        stopped_by_itself(&instance)?;
        let call = self
            .client
            .ec2
            .create_image()
            .instance_id(&request.machine.0)
            .name(request.image.label())
            .description("Stagely: what machines boot")
            .set_tag_specifications(Some(tags::of_image(request.image, request.installation)));
        match self.client.send(DOING, &CREATE_IMAGE, call.send()).await {
            // A call before this one has made it, and nothing shows it yet: whose it is, the next look tells.
            Err(Refused { error, .. }) if error.kind != ErrorKind::Exists && error.kind != ErrorKind::Conflict => {
                Err(error)
            }
            // The look of the next call decides, not this answer.
            _ => Ok(CaptureProgress::InProgress),
        }
    }

    /// The image of this name, which only ours can be.
    async fn made_image(&self, request: &CaptureRequest) -> Result<Option<Found>> {
        let name = Filter::builder().name("name").values(request.image.label()).build();
        let call = self.client.ec2.describe_images().owners("self").filters(name).send();
        let answer = self.client.send(DOING, &DESCRIBE_IMAGES, call).await?;
        let Some(found) = answer.images().first() else { return Ok(None) };
        let whose = (tags::installation(found.tags()), tags::image(found.tags()));
        if whose != (Some(request.installation), Some(request.image)) {
            let message = "an image of this name exists, and is not this installation's";
            return Err(CloudError::new(ErrorKind::Exists, DOING, message));
        }
        Ok(Some(found.clone()))
    }

    async fn progress(&self, found: &Found) -> Result<CaptureProgress> {
        let id =
            found.image_id().ok_or_else(|| CloudError::new(ErrorKind::Protocol, DOING, "an image without an id"))?;
        match found.state() {
            Some(ImageState::Available) => {
                let locations = vec![self.config.region.clone()];
                Ok(CaptureProgress::Ready(Image { reference: id.to_owned(), locations }))
            }
            Some(ImageState::Failed | ImageState::Error | ImageState::Invalid) => {
                // It keeps the name, under which the next call makes another.
                let call = self.client.ec2.deregister_image().image_id(id).delete_associated_snapshots(true).send();
                self.client.send(DOING, &DEREGISTER_IMAGE, call).await?;
                let reason = found.state_reason().and_then(|reason| reason.message()).unwrap_or("no reason given");
                let message = format!("the image failed, and was removed ({reason})");
                Err(CloudError::new(ErrorKind::Unavailable, DOING, message))
            }
            _ => Ok(CaptureProgress::InProgress),
        }
    }
}

/// What somebody else has stopped may have half of its work on the disk.
fn stopped_by_itself(instance: &Instance) -> Result<()> {
    match instance.state_reason().and_then(|reason| reason.code()) {
        None | Some(BY_ITSELF) => Ok(()),
        Some(code) => Err(invalid(&format!("it did not power itself off: it was stopped ({code})"))),
    }
}

fn invalid(message: &str) -> CloudError {
    CloudError::new(ErrorKind::Invalid, DOING, message)
}
