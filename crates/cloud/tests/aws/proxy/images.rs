//! Images: moto makes one at once under any name, cannot tag its snapshots (it answers with status 500), and leaves them
//! behind. Here names are unique, both are tagged in one call, an image takes its time, and what is asked to go with it goes.

use super::{Enforcer, Inside, Outcome, Parameters, StatusCode, between, error};

impl Enforcer {
    /// What a machine does that powers itself off: it ends or stops, as was said when it was made.
    pub async fn power_off(&self, id: &str) {
        let stops = {
            let world = self.inside.world();
            let made = world.tokens.values().find(|(_, _, made)| made == id).map(|(asked, ..)| asked);
            made.unwrap()["InstanceInitiatedShutdownBehavior"] == "stop"
        };
        assert_eq!(self.inside.state_of(id).await, "running");
        let action = if stops { "StopInstances" } else { "TerminateInstances" };
        self.ask(&[("Action", action), ("InstanceId.1", id)]).await;
        let mut world = self.inside.world();
        world.by_itself.insert(id.to_owned());
        if !stops {
            world.ended.insert(id.to_owned());
        }
    }

    /// How many images and snapshots carry a tag of this value.
    pub async fn tagged(&self, key: &str, value: &str) -> (usize, usize) {
        let filter = format!("tag:{key}");
        let of = |action| [("Action", action), ("Filter.1.Name", &*filter), ("Filter.1.Value.1", value)];
        let (images, snapshots) = (self.ask(&of("DescribeImages")).await, self.ask(&of("DescribeSnapshots")).await);
        (images.matches("<imageId>").count(), snapshots.matches("<snapshotId>").count())
    }
}

pub(super) async fn create(inside: &Inside, given: &Parameters) -> Outcome {
    let get = |name: &str| given.get(name).map_or("", String::as_str);
    let (name, instance) = (get("Name"), get("InstanceId"));
    let legal = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if !(3..=128).contains(&name.len()) || !name.chars().all(legal) {
        return Err(error(400, "InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long"));
    }
    let same = [("Owner.1", "self"), ("Filter.1.Name", "name"), ("Filter.1.Value.1", name)];
    let same = inside.ask(&[&[("Action", "DescribeImages")], &same[..]].concat()).await;
    if let Some(taken) = between(&same, "<imageId>", "<") {
        let message = format!("AMI name {name} is already in use by AMI {taken}");
        return Err(error(400, "InvalidAMIName.Duplicate", &message));
    }
    let wanted = ["Name", "Description", "InstanceId"].map(|name| (name, get(name)));
    let text = inside.ask(&[&[("Action", "CreateImage")], &wanted[..]].concat()).await;
    let Some(image) = between(&text, "<imageId>", "<") else { return Ok((StatusCode::BAD_REQUEST, text)) };
    let shown = inside.ask(&[("Action", "DescribeImages"), ("ImageId.1", image)]).await;
    let snapshot = between(&shown, "<snapshotId>", "<").unwrap();
    for number in 1..=2 {
        let specified = format!("TagSpecification.{number}.");
        let resource = match get(&format!("{specified}ResourceType")) {
            "image" => image,
            "snapshot" => snapshot,
            _ => continue,
        };
        let tags: Vec<(&str, &str)> = given
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(&specified)?, value.as_str())))
            .filter(|(name, _)| name.starts_with("Tag."))
            .collect();
        inside.ask(&[&[("Action", "CreateTags"), ("ResourceId.1", resource)], &tags[..]].concat()).await;
    }
    assert!(!inside.state_of(instance).await.is_empty());
    let mut world = inside.world();
    let (hidden, slow) = (world.knobs.hidden_image, world.knobs.slow_image);
    let state = if std::mem::take(&mut world.knobs.fail_image) { ("failed", usize::MAX) } else { ("pending", slow) };
    world.hidden.insert(image.to_owned(), hidden);
    world.passing.insert(image.to_owned(), state);
    Ok((StatusCode::OK, text))
}

/// What a look shows of images: nothing of one that is too young, and of others that they are being made.
pub(super) fn show(inside: &Inside, mut text: String) -> String {
    let mut world = inside.world();
    let hidden: Vec<String> = world.hidden.keys().filter(|id| id.starts_with("ami-")).cloned().collect();
    if hidden.iter().any(|id| text.contains(id.as_str()) && world.hides(id)) {
        return "<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>".to_owned();
    }
    for (id, (state, left)) in world.passing.iter_mut().filter(|(_, (_, left))| *left > 0) {
        let Some(at) = text.find(&format!("<imageId>{id}</imageId>")) else { continue };
        // Wherever in its item the state stands.
        let start = text[..at].rfind("<item>").unwrap_or(0);
        let (before, item) = text.split_at(start);
        let being = format!("<imageState>{state}</imageState>");
        text = format!("{before}{}", item.replacen("<imageState>available</imageState>", &being, 1));
        *left -= 1;
    }
    text
}

/// Whether it is being made.
pub(super) fn is_pending(inside: &Inside, id: &str) -> bool {
    inside.world().passing.get(id).is_some_and(|(_, left)| *left > 0)
}

pub(super) async fn deregister(
    inside: &Inside,
    headers: http::HeaderMap,
    body: bytes::Bytes,
    given: &Parameters,
) -> Outcome {
    let image = given.get("ImageId").cloned().unwrap_or_default();
    let shown = inside.ask(&[("Action", "DescribeImages"), ("ImageId.1", &image)]).await;
    let (status, text) = inside.forward(headers, body).await;
    if status.is_success() && given.get("DeleteAssociatedSnapshots").is_some_and(|with| with == "true") {
        let snapshots = shown.split("<snapshotId>").skip(1).filter_map(|rest| rest.split('<').next());
        for snapshot in snapshots {
            inside.ask(&[("Action", "DeleteSnapshot"), ("SnapshotId", snapshot)]).await;
        }
    }
    Ok((status, text))
}
