//! What machines can leave behind, and what costs money or quota without being one.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use stagely_domain::id::{ImageId, InstallationId, MachineId};

use crate::Result;

/// Something at the provider that carries our installation's tag and is not a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residue {
    /// What it is.
    pub kind: ResidueKind,
    /// The provider's id.
    pub id: String,
    /// Whose it is, from its tags.
    pub installation: InstallationId,
    /// The machine it belongs or belonged to, from its tags; none for what all machines share.
    pub machine: Option<MachineId>,
    /// The image that machines boot which this is, or is a part of, from its tags.
    pub image: Option<ImageId>,
    /// When it was made, where the provider says.
    pub created_at: Option<DateTime<Utc>>,
    /// Whether a person has said that it must stay.
    pub hold: bool,
}

impl Residue {
    /// Whether it is the image that [`crate::CreateRequest::image`] names so, and not a part of it, nor a twin that a lost
    /// answer made. Either may name its region, as it does when the account has several or had several.
    #[must_use]
    pub fn is_image(&self, reference: &str) -> bool {
        let (id, name) = (plain(&self.id), plain(reference));
        let is_named = id == reference || self.id == name || self.id == reference;
        self.kind == ResidueKind::Image && self.image.is_some() && is_named
    }
}

fn plain(id: &str) -> &str {
    id.rsplit_once('/').map_or(id, |(_, id)| id)
}

/// The kinds that providers bill or count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResidueKind {
    /// A disk.
    Volume,
    /// A copy of a disk.
    Snapshot,
    /// A machine image.
    Image,
    /// A public address.
    Address,
    /// A network interface.
    Interface,
    /// An SSH key.
    Key,
    /// A firewall or security group.
    Firewall,
    /// A request for a spot machine.
    SpotRequest,
}

/// A list of them and whether it is whole. Nothing may be concluded from what a partial list lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residues {
    /// What was found.
    pub items: Vec<Residue>,
    /// Whether every page of every kind was read.
    pub complete: bool,
}

impl Residues {
    /// Holds every part of an image of which a person holds one: with an image the provider may remove its parts.
    #[must_use]
    pub fn with_whole_images_held(mut self) -> Self {
        let held: HashSet<ImageId> = self.items.iter().filter(|item| item.hold).filter_map(|item| item.image).collect();
        for item in &mut self.items {
            item.hold |= item.image.is_some_and(|image| held.contains(&image));
        }
        self
    }

    /// Puts together what was read of each kind. One that could not be read makes it incomplete, and does not hide the
    /// others.
    ///
    /// # Errors
    /// Why something could not be read, when nothing at all was found.
    pub(crate) fn of_kinds(installation: InstallationId, readings: Vec<Result<Vec<Residue>>>) -> Result<Self> {
        let (mut items, mut refused) = (Vec::new(), None);
        for reading in readings {
            match reading {
                Ok(found) => items.extend(found),
                Err(error) => refused = Some(error),
            }
        }
        items.retain(|item: &Residue| item.installation == installation);
        match refused {
            Some(error) if items.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "the list of what is left over is incomplete");
                Ok(Self { items, complete: false })
            }
            None => Ok(Self { items, complete: true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ImageId, InstallationId, Residue, ResidueKind, Residues};

    fn of(id: &str) -> Residue {
        Residue {
            kind: ResidueKind::Image,
            id: id.to_owned(),
            installation: InstallationId::generate(),
            machine: None,
            image: Some(ImageId::generate()),
            created_at: None,
            hold: false,
        }
    }

    #[test]
    fn who_holds_a_part_of_an_image_holds_all_of_it_and_nothing_else() {
        let ami = of("ami-1");
        let snapshot = Residue { kind: ResidueKind::Snapshot, image: ami.image, hold: true, ..of("snap-1") };
        let disk = || Residue { kind: ResidueKind::Volume, image: None, ..of("vol-1") };
        let items = vec![ami, snapshot, of("ami-2"), Residue { hold: true, ..disk() }, disk()];
        let held = Residues { items, complete: false }.with_whole_images_held();
        assert_eq!(held.items.iter().map(|item| item.hold).collect::<Vec<_>>(), [true, true, false, true, false]);
        assert!(!held.complete);
    }

    #[test]
    fn an_image_is_known_by_its_name_with_its_region_and_without() {
        for (id, reference, expected) in [
            ("ami-1", "ami-1", true),
            ("eu-west-1/ami-1", "eu-west-1/ami-1", true),
            ("eu-west-1/ami-1", "ami-1", true),
            ("ami-1", "eu-west-1/ami-1", true),
            ("ami-2", "eu-west-1/ami-1", false),
            ("us-east-1/ami-1", "eu-west-1/ami-1", false),
        ] {
            assert_eq!(of(id).is_image(reference), expected, "{id} {reference}");
        }
        assert!(!Residue { kind: ResidueKind::Snapshot, ..of("ami-1") }.is_image("ami-1"));
    }
}
