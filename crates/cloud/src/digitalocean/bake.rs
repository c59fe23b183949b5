//! Images of machines that were made to bake. Such an image is a snapshot whose name says so, for a snapshot is made with a
//! name and nothing else. Names are not unique and a snapshot is shown only when it is whole, so whoever wants an image
//! looks first: for its name, and then for what was done with the droplet, which tells of an image that is not shown yet.

use serde_json::{Value, json};

use crate::digitalocean::DigitalOcean;
use crate::digitalocean::http::Progress;
use crate::digitalocean::machine::{self, Meant};
use crate::digitalocean::tags::Golden;
use crate::digitalocean::wire::{Action, Image as Snapshot};
use crate::{CaptureProgress, CaptureRequest, CloudError, ErrorKind, Image, Result};

const DOING: &str = "make an image of a machine";
/// After either of these a droplet is off because somebody wanted it so.
const STOPS: [&str; 2] = ["shutdown", "power_off"];

impl DigitalOcean {
    /// One step towards the image.
    pub(super) async fn image_of(&self, request: &CaptureRequest, meant: Meant) -> Result<CaptureProgress> {
        let golden = Golden { installation: request.installation, image: request.image };
        let made = self.made_images(golden).await?;
        // Of twins, which a lost answer can make, the older one that is whole is meant by everybody.
        if let Some(whole) = made.iter().filter(|image| image.status == "available").min_by_key(|image| image.id) {
            let (reference, locations) = (whole.id.to_string(), whole.regions.clone());
            return Ok(CaptureProgress::Ready(Image { reference, locations }));
        }
        if !made.is_empty() {
            return Ok(CaptureProgress::InProgress);
        }
        let lines = machine::look(&self.http, DOING, meant).await?;
        let Some((droplet, tags)) = lines.values().find_map(machine::Line::droplet) else {
            return Err(CloudError::new(ErrorKind::NotFound, DOING, "there is none"));
        };
        if tags.installation != request.installation || !tags.bakes() {
            return Err(invalid("it was not made by this installation to make an image of it"));
        }
        if droplet.locked || droplet.status != "off" || !is_done(&self.actions(DOING, droplet.id).await?)? {
            return Ok(CaptureProgress::InProgress);
        }
        let path = format!("droplets/{}/actions", droplet.id);
        let body = json!({"type": "snapshot", "name": golden.name()});
        let answer = match self.http.post(DOING, &path, &body).await {
            Err(error) if error.kind == ErrorKind::Conflict => return Ok(CaptureProgress::InProgress),
            answer => answer?,
        };
        let action = answer.pointer("/action/id").and_then(Value::as_u64);
        match self.http.follow(DOING, action, self.http.timing().action).await? {
            Progress::Failed => Err(CloudError::new(ErrorKind::Unavailable, DOING, "the snapshot failed")),
            // The look of the next call decides, not this answer.
            Progress::Done | Progress::Going => Ok(CaptureProgress::InProgress),
        }
    }

    /// The images of this name, whole or not. Another installation's have another.
    async fn made_images(&self, golden: Golden) -> Result<Vec<Snapshot>> {
        let mut found: Vec<Snapshot> = self.http.list(DOING, "images", &[("private", "true")]).await?;
        found.retain(|image| Golden::read(&image.name) == Some(golden));
        Ok(found)
    }
}

/// Whether a droplet that is off has turned itself off, and no image of it is there or on its way.
///
/// # Errors
/// When somebody else has turned it off: half of its work may be on the disk.
fn is_done(actions: &[Action]) -> Result<bool> {
    if actions.iter().any(|action| STOPS.contains(&&*action.kind) && action.status == "completed") {
        return Err(invalid("it did not power itself off: it was stopped"));
    }
    // An image that was made is there although no list shows it yet; one that failed is none.
    let made = |action: &Action| action.kind == "snapshot" && action.status != "errored";
    Ok(!actions.iter().any(|action| made(action) || action.status == "in-progress"))
}

fn invalid(message: &str) -> CloudError {
    CloudError::new(ErrorKind::Invalid, DOING, message)
}

#[cfg(test)]
mod tests {
    use super::is_done;
    use crate::digitalocean::wire::Action;

    #[test]
    fn an_image_is_made_of_what_turned_itself_off_and_only_once() {
        for (kind, status, expected) in [
            ("create", "completed", Some(true)),
            ("create", "in-progress", Some(false)),
            ("snapshot", "in-progress", Some(false)),
            ("snapshot", "completed", Some(false)),
            ("snapshot", "errored", Some(true)),
            ("shutdown", "completed", None),
            ("power_off", "completed", None),
            ("power_off", "errored", Some(true)),
        ] {
            let action = Action { id: 1, kind: kind.to_owned(), status: status.to_owned() };
            assert_eq!(is_done(&[action]).ok(), expected, "{kind} {status}");
        }
    }
}
