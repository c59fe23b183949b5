//! Everything of an installation that costs money or quota and is no machine. An id is `<collection>/<id>`. What has no
//! tags here is known by its name, and a reserved address by the droplet that has it.

use chrono::{DateTime, Utc};
use stagely_domain::id::{InstallationId, MachineId};

use crate::digitalocean::http::Http;
use crate::digitalocean::machine;
use crate::digitalocean::tags::{self, Golden, prefix};
use crate::digitalocean::wire::{Disk, Droplet, Firewall, Image, Key, ReservedIp};
use crate::{CloudError, DeleteProgress, ErrorKind, Residue, ResidueKind, Residues, Result};

const LIST: &str = "list what is left over";
const DELETE: &str = "delete what is left over";
const COLLECTIONS: [&str; 5] = ["volumes", "snapshots", "reserved_ips", "firewalls", "account/keys"];

/// What there is.
pub(super) async fn list(http: &Http, installation: InstallationId) -> Result<Residues> {
    let readings = vec![
        volumes(http, installation).await,
        volume_snapshots(http, installation).await,
        addresses(http, installation).await,
        firewalls(http, installation).await,
        keys(http, installation).await,
        spare_snapshots(http, installation).await,
    ];
    Residues::of_kinds(installation, readings)
}

async fn volumes(http: &Http, installation: InstallationId) -> Result<Vec<Residue>> {
    let disks: Vec<Disk> = http.list(LIST, "volumes", &[]).await?;
    let tagged = disks.iter().filter(|disk| tags::installation(&disk.tags) == Some(installation));
    let residue = |disk: &Disk| {
        of_tags(ResidueKind::Volume, format!("volumes/{}", disk.id), installation, &disk.tags, disk.created_at)
    };
    Ok(tagged.map(residue).collect())
}

async fn volume_snapshots(http: &Http, installation: InstallationId) -> Result<Vec<Residue>> {
    let disks: Vec<Disk> = http.list(LIST, "snapshots", &[("resource_type", "volume")]).await?;
    let tagged = disks.iter().filter(|disk| tags::installation(&disk.tags) == Some(installation));
    let residue = |disk: &Disk| {
        of_tags(ResidueKind::Snapshot, format!("snapshots/{}", disk.id), installation, &disk.tags, disk.created_at)
    };
    Ok(tagged.map(residue).collect())
}

async fn addresses(http: &Http, installation: InstallationId) -> Result<Vec<Residue>> {
    let addresses: Vec<ReservedIp> = http.list(LIST, "reserved_ips", &[]).await?;
    let residue = |address: ReservedIp| {
        let tags = address.droplet?.tags;
        let ours = tags::installation(&tags) == Some(installation);
        let id = format!("reserved_ips/{}", address.ip);
        ours.then(|| of_tags(ResidueKind::Address, id, installation, &tags, None))
    };
    Ok(addresses.into_iter().filter_map(residue).collect())
}

async fn firewalls(http: &Http, installation: InstallationId) -> Result<Vec<Residue>> {
    let firewalls: Vec<Firewall> = http.list(LIST, "firewalls", &[]).await?;
    let ours = firewalls.iter().filter(|firewall| firewall.name == prefix(installation));
    let residue = |firewall: &Firewall| {
        let id = format!("firewalls/{}", firewall.id);
        of_tags(ResidueKind::Firewall, id, installation, &firewall.tags, firewall.created_at)
    };
    Ok(ours.map(residue).collect())
}

async fn keys(http: &Http, installation: InstallationId) -> Result<Vec<Residue>> {
    let keys: Vec<Key> = http.list(LIST, "account/keys", &[]).await?;
    let (name, begin) = (prefix(installation), format!("{}-", prefix(installation)));
    let ours = keys.iter().filter(|key| key.name == name || key.name.starts_with(&begin));
    let residue = |key: &Key| of_tags(ResidueKind::Key, format!("account/keys/{}", key.id), installation, &[], None);
    Ok(ours.map(residue).collect())
}

/// Snapshots in which no machine sleeps, and to which none is falling asleep; among them are the images that machines boot.
async fn spare_snapshots(http: &Http, installation: InstallationId) -> Result<Vec<Residue>> {
    let mut images: Vec<Image> = http.list(LIST, "images", &[("private", "true")]).await?;
    let mut copies = machine::named(images.clone());
    copies.retain(|copy| copy.origin.installation == installation);
    let named: Vec<u64> = copies.iter().map(|copy| copy.image.id).collect();
    let (droplets, complete) = machine::droplets_in(http, LIST, installation).await?;
    if !complete {
        // Of a droplet that cannot be read nobody knows whether it is asleep in one of these.
        return Err(CloudError::new(ErrorKind::Protocol, LIST, "a droplet carries our tag and cannot be read"));
    }
    let lines = machine::lines(droplets, copies);
    let spare = lines.values().flat_map(machine::Line::spare).map(|copy| {
        let residue = snapshot(&copy.image, installation);
        Residue { machine: Some(copy.origin.machine), ..residue }
    });
    let mut residues: Vec<Residue> = spare.collect();
    images.retain(|image| !named.contains(&image.id));
    for image in &images {
        match Golden::read(&image.name) {
            Some(golden) if golden.installation == installation => {
                let residue = snapshot(image, installation);
                let (kind, image) = (ResidueKind::Image, Some(golden.image));
                residues.push(Residue { kind, image, machine: None, ..residue });
            }
            Some(_) => {}
            // Others that somebody gave our tag.
            None if tags::installation(&image.tags) == Some(installation) => {
                residues.push(snapshot(image, installation));
            }
            None => {}
        }
    }
    Ok(residues)
}

fn snapshot(image: &Image, installation: InstallationId) -> Residue {
    let id = format!("snapshots/{}", image.id);
    of_tags(ResidueKind::Snapshot, id, installation, &image.tags, image.created_at)
}

fn of_tags(
    kind: ResidueKind,
    id: String,
    installation: InstallationId,
    tags: &[String],
    created_at: Option<DateTime<Utc>>,
) -> Residue {
    let machine: Option<MachineId> = tags::machine(tags);
    Residue { kind, id, installation, machine, image: None, created_at, hold: tags::is_held(tags) }
}

/// Removes one of them. What a machine still uses is asked for again.
pub(super) async fn delete(http: &Http, residue: &Residue) -> Result<DeleteProgress> {
    // Only a path of ours is ever sent.
    let known = residue.id.rsplit_once('/').is_some_and(|(collection, id)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        let word = id.chars().all(plain) && id.chars().any(|c| c.is_ascii_alphanumeric());
        COLLECTIONS.contains(&collection) && word
    });
    if !known {
        return Err(CloudError::new(ErrorKind::Invalid, DELETE, "not an id of this provider"));
    }
    if residue.kind == ResidueKind::Firewall && guards(http, residue.installation).await? {
        return Ok(DeleteProgress::InProgress);
    }
    match http.delete(DELETE, &residue.id).await {
        Ok(_) => Ok(DeleteProgress::Gone),
        Err(error) if error.kind == ErrorKind::Conflict => Ok(DeleteProgress::InProgress),
        Err(error) => Err(error),
    }
}

/// Whether machines stand behind the firewall of an installation: the provider would remove it all the same.
async fn guards(http: &Http, installation: InstallationId) -> Result<bool> {
    let tag = tags::installation_tag(installation);
    let behind: Vec<Droplet> = http.list(DELETE, "droplets", &[("tag_name", &*tag)]).await?;
    Ok(!behind.is_empty())
}
