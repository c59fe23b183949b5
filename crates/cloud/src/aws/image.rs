//! Which image a machine boots, and what must be known of it to give it a disk.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, ImageState};
use stagely_domain::machine::Arch;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::aws::Aws;
use crate::aws::actions::{DESCRIBE_IMAGES, GET_PARAMETERS};
use crate::{CloudError, ErrorKind, Result};

const DOING: &str = "look for the image";
/// How long an answer is believed.
const KNOWN: Duration = Duration::from_secs(3600);

/// An image that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) id: String,
    /// The name of its root disk, by which that is given its size and encryption.
    pub(super) root: String,
    /// The size of that disk: a machine's is no smaller.
    pub(super) disk_gib: u32,
}

#[derive(Default)]
pub(super) struct Images(Mutex<HashMap<(String, Arch), (Instant, Image)>>);

impl Aws {
    /// The image of this name for this processor; the account's own where none is named.
    pub(super) async fn image(&self, arch: Arch, name: Option<&str>) -> Result<Image> {
        let wanted = named(name.unwrap_or(&self.config.image), arch);
        let mut known = self.images.0.lock().await;
        known.retain(|_, (read_at, _)| read_at.elapsed() < KNOWN);
        let key = (wanted, arch);
        if let Some((_, image)) = known.get(&key) {
            return Ok(image.clone());
        }
        let image = self.look_for_image(&key.0, arch).await?;
        known.insert(key, (Instant::now(), image.clone()));
        Ok(image)
    }

    pub(super) async fn forget_images(&self, arch: Arch) {
        self.images.0.lock().await.retain(|(_, of), _| *of != arch);
    }

    async fn look_for_image(&self, wanted: &str, arch: Arch) -> Result<Image> {
        let request = self.client.ec2.describe_images();
        let request = if let Some((key, value)) = wanted.strip_prefix("tag:").and_then(|tag| tag.split_once('=')) {
            let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
            request
                .owners("self")
                .filters(filter(&format!("tag:{key}"), value))
                .filters(filter("architecture", machine(arch)))
                .filters(filter("state", "available"))
        } else if wanted.starts_with('/') {
            request.image_ids(self.client.parameter(DOING, &GET_PARAMETERS, wanted).await?)
        } else {
            request.image_ids(wanted)
        };
        let found = self.client.send(DOING, &DESCRIBE_IMAGES, request.send()).await?;
        let newest = found.images().iter().max_by_key(|image| image.creation_date().unwrap_or_default());
        let image = newest.ok_or_else(|| invalid(format!("{wanted}: there is no such image in this region")))?;
        if let Some(state) = image.state().filter(|state| **state != ImageState::Available) {
            return Err(invalid(format!("{wanted}: the image is not available ({})", state.as_str())));
        }
        if image.architecture().is_some_and(|found| found.as_str() != machine(arch)) {
            return Err(invalid(format!("{wanted}: the image is not for {arch}")));
        }
        let (Some(id), Some(root)) = (image.image_id(), image.root_device_name()) else {
            return Err(invalid(format!("{wanted}: the image has no root disk")));
        };
        let disk = image.block_device_mappings().iter().find(|disk| disk.device_name() == Some(root));
        let size = disk.and_then(|disk| disk.ebs()?.volume_size()).and_then(|size| u32::try_from(size).ok());
        Ok(Image { id: id.to_owned(), root: root.to_owned(), disk_gib: size.unwrap_or_default() })
    }
}

/// The provider's name of a processor.
pub(super) const fn machine(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "arm64",
    }
}

fn named(image: &str, arch: Arch) -> String {
    image.replace("{arch}", &arch.to_string()).replace("{machine}", machine(arch))
}

fn invalid(message: String) -> CloudError {
    CloudError::new(ErrorKind::Invalid, DOING, message)
}

#[cfg(test)]
mod tests {
    use stagely_domain::machine::Arch;

    use super::named;
    use crate::aws::IMAGE;

    #[test]
    fn a_parameter_names_the_processor_in_either_way() {
        assert_eq!(named(IMAGE, Arch::Amd64), "/aws/service/debian/release/13/latest/amd64");
        assert_eq!(named("/x-{machine}", Arch::Amd64), "/x-x86_64");
        assert_eq!(named("/x-{machine}-{arch}", Arch::Arm64), "/x-arm64-arm64");
        assert_eq!(named("ami-1", Arch::Arm64), "ami-1");
    }
}
