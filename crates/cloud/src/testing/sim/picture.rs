//! Images that the simulated cloud has.

use chrono::{DateTime, Utc};
use stagely_domain::id::{ImageId, InstallationId};

use crate::testing::sim::Inside;
use crate::{
    CaptureProgress, CaptureRequest, CloudError, DeleteProgress, ErrorKind, Image, Residue, ResidueKind, Result,
    VmState,
};

const DOING: &str = "make an image of a machine";

/// An image from its first second on, and after its last.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The provider's name of it.
    pub reference: String,
    /// Our id.
    pub image: ImageId,
    /// Whose it is.
    pub installation: InstallationId,
    /// When it came to be.
    pub born: DateTime<Utc>,
    /// When machines can boot it.
    pub ready_at: DateTime<Utc>,
    /// When it was there no more.
    pub ended: Option<DateTime<Utc>>,
    shown_from: DateTime<Utc>,
}

impl Picture {
    /// Whether it exists.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.ended.is_none()
    }

    fn is(&self, request: &CaptureRequest) -> bool {
        self.is_alive() && (self.image, self.installation) == (request.image, request.installation)
    }

    fn is_shown(&self, now: DateTime<Utc>) -> bool {
        self.is_alive() && self.shown_from <= now
    }
}

impl Inside {
    /// One step towards an image. Where names are unique a second is refused; elsewhere it is a twin.
    pub(super) fn capture(&mut self, request: &CaptureRequest, now: DateTime<Utc>) -> Result<CaptureProgress> {
        let shown: Vec<&Picture> = self.pictures.iter().filter(|one| one.is(request) && one.is_shown(now)).collect();
        if let Some(whole) = shown.iter().find(|one| one.ready_at <= now) {
            let reference = whole.reference.clone();
            return Ok(CaptureProgress::Ready(Image { reference, locations: Vec::new() }));
        }
        if !shown.is_empty() {
            return Ok(CaptureProgress::InProgress);
        }
        let record = &self.records[self.index(&request.machine, DOING)?];
        let is_ours = record.tags.as_ref().is_some_and(|tags| tags.installation == request.installation);
        if !is_ours || !record.bakes {
            return Err(CloudError::new(ErrorKind::Invalid, DOING, "it was not made to make an image of it"));
        }
        let name_is_taken = !self.habits.makes_twins && self.pictures.iter().any(|one| one.is(request));
        if record.state != VmState::Stopped || name_is_taken {
            return Ok(CaptureProgress::InProgress);
        }
        self.made += 1;
        self.pictures.push(Picture {
            reference: format!("sim-image-{}", self.made),
            image: request.image,
            installation: request.installation,
            born: now,
            ready_at: now + self.chance.span(self.habits.images_in),
            ended: None,
            shown_from: now + self.chance.span(self.habits.shows_after),
        });
        Ok(CaptureProgress::InProgress)
    }

    /// Whether machines can boot it.
    pub(super) fn can_boot(&self, reference: &str, at: DateTime<Utc>) -> bool {
        self.pictures.iter().any(|one| one.is_alive() && one.reference == reference && one.ready_at <= at)
    }

    /// The images that a list shows.
    pub(super) fn shown_pictures(&self, now: DateTime<Utc>) -> impl Iterator<Item = Residue> {
        self.pictures.iter().filter(move |one| one.is_shown(now)).map(|one| Residue {
            kind: ResidueKind::Image,
            id: one.reference.clone(),
            installation: one.installation,
            machine: None,
            image: Some(one.image),
            created_at: Some(one.born),
            hold: false,
        })
    }

    /// Removes an image, if this is one: not before it is whole.
    pub(super) fn remove_picture(&mut self, residue: &Residue, now: DateTime<Utc>) -> DeleteProgress {
        match self.pictures.iter_mut().find(|one| one.is_alive() && one.reference == residue.id) {
            Some(young) if young.ready_at > now => DeleteProgress::InProgress,
            found => {
                found.into_iter().for_each(|one| one.ended = Some(now));
                DeleteProgress::Gone
            }
        }
    }
}
