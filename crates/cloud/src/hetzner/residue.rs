//! Everything of an installation that costs money or quota and is no machine. An id is `<collection>/<number>`, for each
//! collection numbers its own.

use std::collections::HashMap;

use stagely_domain::id::{InstallationId, MachineId};

use crate::hetzner::http::Http;
use crate::hetzner::labels::{self, Tags};
use crate::hetzner::machine::Machine;
use crate::hetzner::wire::{Image, Labelled, Labels, Server};
use crate::{CloudError, DeleteProgress, ErrorKind, Residue, ResidueKind, Residues, Result};

const LIST: &str = "list what is left over";
const DELETE: &str = "delete what is left over";
const SNAPSHOTS: &str = "images";

/// All collections but that of the snapshots, some of which are machines.
const COLLECTIONS: [(&str, ResidueKind); 5] = [
    ("volumes", ResidueKind::Volume),
    ("primary_ips", ResidueKind::Address),
    ("floating_ips", ResidueKind::Address),
    ("ssh_keys", ResidueKind::Key),
    ("firewalls", ResidueKind::Firewall),
];

/// What there is.
pub(super) async fn list(http: &Http, installation: InstallationId) -> Result<Residues> {
    let selector = labels::selector(labels::INSTALLATION, installation);
    let mut readings = Vec::new();
    for (collection, kind) in COLLECTIONS {
        let found = http.list::<Labelled>(LIST, collection, &[("label_selector", &*selector)]).await;
        let residues = |found: Vec<Labelled>| found.iter().filter_map(|item| residue(kind, collection, item)).collect();
        readings.push(found.map(residues));
    }
    readings.push(spare_snapshots(http, &selector).await);
    Residues::of_kinds(installation, readings)
}

/// Snapshots in which no machine sleeps, and to which none is falling asleep; among them are the images that machines boot.
async fn spare_snapshots(http: &Http, selector: &str) -> Result<Vec<Residue>> {
    let query = [("type", "snapshot"), ("label_selector", selector)];
    let images: Vec<Image> = http.list(LIST, SNAPSHOTS, &query).await?;
    let servers: Vec<Server> = http.list(LIST, "servers", &[("label_selector", selector)]).await?;
    let (mut machines, mut spare) = (HashMap::<MachineId, Machine>::new(), Vec::new());
    for server in servers {
        if let Some(tags) = Tags::read(&server.labels) {
            let id = tags.machine;
            machines.entry(id).or_default().server = Some((server, tags));
        }
    }
    for image in images {
        match Tags::read(&image.labels) {
            // An image that machines boot, or what nobody can tell.
            None => spare.push(image),
            Some(tags) => machines.entry(tags.machine).or_default().snapshots.push((image, tags)),
        }
    }
    for machine in machines.values() {
        match (&machine.server, machine.bed()) {
            (Some(_), _) => spare.extend(machine.past().map(|(image, _)| image.clone())),
            (None, Some((bed, _))) => {
                let others = machine.snapshots.iter().filter(|(image, _)| image.id != bed.id);
                spare.extend(others.map(|(image, _)| image.clone()));
            }
            (None, None) => {}
        }
    }
    let as_labelled = |image: Image| Labelled { id: image.id, labels: image.labels, created: image.created };
    let spare = spare.into_iter().map(as_labelled).filter_map(|image| {
        let kind = if labels::image(&image.labels).is_some() { ResidueKind::Image } else { ResidueKind::Snapshot };
        residue(kind, SNAPSHOTS, &image)
    });
    Ok(spare.collect())
}

fn residue(kind: ResidueKind, collection: &str, item: &Labelled) -> Option<Residue> {
    let labels: &Labels = &item.labels;
    Some(Residue {
        kind,
        id: format!("{collection}/{}", item.id),
        installation: labels::installation(labels)?,
        machine: labels::machine(labels),
        image: labels::image(labels),
        created_at: item.created,
        hold: labels::is_held(labels),
    })
}

/// Removes one of them. What a machine still uses is asked for again.
pub(super) async fn delete(http: &Http, residue: &Residue) -> Result<DeleteProgress> {
    let known = COLLECTIONS.iter().map(|(collection, _)| *collection).chain([SNAPSHOTS]);
    // Only a path of ours is ever sent.
    let path = residue.id.split_once('/').and_then(|(collection, number)| {
        let collection = known.into_iter().find(|known| *known == collection)?;
        Some(format!("{collection}/{}", number.parse::<u64>().ok()?))
    });
    let path = path.ok_or_else(|| CloudError::new(ErrorKind::Invalid, DELETE, "not an id of this provider"))?;
    match http.delete(DELETE, &path).await {
        Ok(_) => Ok(DeleteProgress::Gone),
        Err(error) if error.kind == ErrorKind::Conflict => Ok(DeleteProgress::InProgress),
        Err(error) => Err(error),
    }
}
