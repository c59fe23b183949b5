//! Images of machines that were made to bake. Such an image is a snapshot with the image's label and none of a machine's. Its
//! name is nobody's idempotency here, so whoever wants one looks first: for the image, and then for what was done with
//! the server, which tells of an image that no list shows yet.

use hcloud::models::CreateImageFromServerRequest;
use hcloud::models::create_image_from_server_request::Type;
use stagely_domain::id::MachineId;

use crate::hetzner::http::Progress;
use crate::hetzner::wire::{Action, Image as Snapshot};
use crate::hetzner::{Hetzner, labels, machine};
use crate::{CaptureProgress, CaptureRequest, CloudError, ErrorKind, Image, Result};

const DOING: &str = "make an image of a machine";
/// After either of these a server is off because somebody wanted it so.
const STOPS: [&str; 2] = ["shutdown_server", "stop_server"];

impl Hetzner {
    /// One step towards the image.
    pub(super) async fn image_of(&self, request: &CaptureRequest, id: MachineId) -> Result<CaptureProgress> {
        let made = self.made_images(request).await?;
        // Of twins, which a lost answer can make, the older one that is whole is meant by everybody.
        if let Some(whole) = made.iter().filter(|image| image.status == "available").min_by_key(|image| image.id) {
            return Ok(CaptureProgress::Ready(Image { reference: whole.id.to_string(), locations: Vec::new() }));
        }
        if !made.is_empty() {
            return Ok(CaptureProgress::InProgress);
        }
        let Some((server, tags)) = machine::server_only(&self.http, DOING, id).await?.server else {
            return Err(CloudError::new(ErrorKind::NotFound, DOING, "there is none"));
        };
        if tags.installation != request.installation || !tags.bakes() {
            return Err(invalid("it was not made by this installation to make an image of it"));
        }
        if server.status != "off" {
            return Ok(CaptureProgress::InProgress);
        }
        let path = format!("servers/{}/actions", server.id);
        let actions: Vec<Action> = self.http.list_under(DOING, &path, "actions", &[]).await?;
        if !is_done(&actions)? {
            return Ok(CaptureProgress::InProgress);
        }
        let body = CreateImageFromServerRequest {
            description: Some(format!("stagely {}", request.image.label())),
            labels: Some(labels::of_image(request.image, request.installation)),
            r#type: Some(Type::Snapshot),
        };
        let answer = match self.http.post(DOING, &format!("{path}/create_image"), &body).await {
            Err(error) if error.kind == ErrorKind::Conflict => return Ok(CaptureProgress::InProgress),
            answer => answer?,
        };
        match self.http.follow(DOING, &answer).await? {
            Progress::Failed(error) => Err(error),
            // The look of the next call decides, not this answer.
            Progress::Done | Progress::Going => Ok(CaptureProgress::InProgress),
        }
    }

    /// The images of this id, whole or not. Another installation's are none of them.
    async fn made_images(&self, request: &CaptureRequest) -> Result<Vec<Snapshot>> {
        let selector = labels::selector(labels::IMAGE, request.image);
        let query = [("type", "snapshot"), ("label_selector", &*selector)];
        let mut found: Vec<Snapshot> = self.http.list(DOING, "images", &query).await?;
        found.retain(|image| {
            labels::image(&image.labels) == Some(request.image)
                && labels::installation(&image.labels) == Some(request.installation)
        });
        Ok(found)
    }
}

/// Whether a server that is off has run, has turned itself off, and no image of it is there or on its way.
///
/// # Errors
/// When somebody else has turned it off: half of its work may be on the disk.
fn is_done(actions: &[Action]) -> Result<bool> {
    let any = |commands: &[&str], status: &str| {
        actions.iter().any(|action| commands.contains(&&*action.command) && action.status == status)
    };
    if any(&STOPS, "success") {
        return Err(invalid("it did not power itself off: it was stopped"));
    }
    let goes_on = actions.iter().any(|action| action.status == "running");
    // An image that was made is there although no list shows it yet.
    Ok(!goes_on && any(&["start_server"], "success") && !any(&["create_image"], "success"))
}

fn invalid(message: &str) -> CloudError {
    CloudError::new(ErrorKind::Invalid, DOING, message)
}

#[cfg(test)]
mod tests {
    use super::is_done;
    use crate::hetzner::wire::Action;

    fn actions(words: &[(&str, &str)]) -> Vec<Action> {
        let action = |(id, (command, status)): (u64, &(&str, &str))| Action {
            id,
            command: (*command).to_owned(),
            status: (*status).to_owned(),
            error: None,
        };
        (1..).zip(words).map(action).collect()
    }

    #[test]
    fn an_image_is_made_of_what_has_run_and_turned_itself_off_and_only_once() {
        let made = [("create_server", "success"), ("start_server", "success")];
        for (more, expected) in [
            (None, Some(true)),
            (Some(("create_image", "running")), Some(false)),
            (Some(("create_image", "success")), Some(false)),
            (Some(("create_image", "error")), Some(true)),
            (Some(("shutdown_server", "success")), None),
            (Some(("stop_server", "success")), None),
        ] {
            let all: Vec<_> = made.into_iter().chain(more).collect();
            assert_eq!(is_done(&actions(&all)).ok(), expected, "{more:?}");
        }
        // It is off since it was never started.
        assert_eq!(is_done(&actions(&made[..1])).ok(), Some(false));
        assert_eq!(is_done(&actions(&[made[0], ("start_server", "running")])).ok(), Some(false));
    }
}
