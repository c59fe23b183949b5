//! Golden images: what machines boot instead of the provider's stock image. The states that one goes through, and which
//! container images may be put on it.

use serde::{Deserialize, Serialize};

/// The most container images on one golden image.
pub const MAX_BASE_IMAGES: usize = 20;

/// Where a golden image stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ImageState")]
pub enum State {
    /// A machine installs what is to be on it, or the provider copies the machine's disk.
    Baking,
    /// Machines can boot it.
    Ready,
    /// It could not be made, or was lost. Nothing of it is kept at the provider.
    Failed,
    /// Removed as it was wished. Final.
    Gone,
}

impl State {
    /// Every state, for tables.
    pub const ALL: [Self; 4] = [Self::Baking, Self::Ready, Self::Failed, Self::Gone];

    /// Whether an image in this state may be put into `to`.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match self {
            Self::Baking => matches!(to, Self::Ready | Self::Failed | Self::Gone),
            Self::Ready => matches!(to, Self::Failed | Self::Gone),
            Self::Failed => matches!(to, Self::Gone),
            Self::Gone => false,
        }
    }
}

/// Checks the names of container images that are to be on a golden image. They are given to `docker pull` on a machine,
/// so they hold nothing that is not part of a name.
///
/// # Errors
/// What is wrong, for whoever asked.
pub fn check_base_images(names: &[String]) -> Result<(), String> {
    if names.len() > MAX_BASE_IMAGES {
        return Err(format!("{} base images are too many: at most {MAX_BASE_IMAGES}", names.len()));
    }
    match names.iter().find(|name| !is_image_name(name)) {
        Some(name) => {
            let shown: String = name.chars().take(64).collect();
            Err(format!("`{shown}` is no name of a container image, such as `debian:13-slim`"))
        }
        None => Ok(()),
    }
}

fn is_image_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::{MAX_BASE_IMAGES, State, check_base_images};

    /// Every pair; a row for each state, a column for each in the order of [`State::ALL`].
    #[test]
    fn the_table_of_every_pair_of_states() {
        let table = ["baking no yes yes yes", "ready no no yes yes", "failed no no no yes", "gone no no no no"];
        for (from, row) in State::ALL.into_iter().zip(table) {
            for (to, word) in State::ALL.into_iter().zip(row.split_whitespace().skip(1)) {
                assert_eq!(from.may_become(to), word == "yes", "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn names_of_images_pass_and_nothing_else_does() {
        let digest = format!("ghcr.io/acme/base@sha256:{}", "0".repeat(64));
        for good in ["debian:13-slim", "node", "registry.test:5000/a/b_c:v1.2", digest.as_str()] {
            assert_eq!(check_base_images(&[good.to_owned()]), Ok(()), "{good}");
        }
        for bad in ["", "-q", "a b", "a;reboot", "$(reboot)", "a\nb", "a:", "--all", "ä", &"a".repeat(256)] {
            let told = check_base_images(&[bad.to_owned()]).unwrap_err();
            assert!(told.contains("debian:13-slim"), "{bad}: {told}");
        }
        let many = vec!["debian".to_owned(); MAX_BASE_IMAGES + 1];
        assert!(check_base_images(&many).unwrap_err().contains("at most 20"));
    }
}
