//! Several regions as one account. Each is an [`Aws`] of its own, with its own network, firewall, images and allowance of
//! requests, which is how the provider counts them too. What is made goes to the region of its offering; what is looked
//! for is looked for in all of them at once. Ids say where a thing is: `eu-west-1/i-…`, and `i-…` alone in the first
//! region, as it was when that was the only one.

mod doubts;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};
use stagely_domain::account::is_in;
use stagely_domain::clock::Clock;
use stagely_domain::id::{InstallationId, MachineId};
use stagely_domain::machine::{Arch, Size};

use crate::aws::refusal::Refused;
use crate::aws::{Aws, Config, network};
use crate::{
    Capabilities, CaptureProgress, CaptureRequest, Catalogue, Cloud, CloudError, CreateRequest, Created,
    DeleteProgress, ErrorKind, Image, Listing, Offering, ProviderId, Residue, Residues, Result, SleepProgress, Vm,
    VmState,
};
use doubts::Doubts;

const CREATE: &str = "create a machine";
const ROUTE: &str = "find the region of an id";

/// The regions of one account, the best first.
pub struct Regions {
    regions: Vec<Region>,
    doubts: Doubts,
}

struct Region {
    name: String,
    aws: Aws,
    /// Whether machines may be made there. If not, those that were made before are looked after all the same.
    offers: bool,
}

impl Regions {
    /// A provider with these regions, otherwise as `config` says. Asks nobody yet.
    ///
    /// # Errors
    /// As [`Aws::new`], and when there is no region.
    pub fn new(config: &Config, regions: &[String], clock: &Arc<dyn Clock>) -> Result<Self> {
        let region = |name: &String| {
            let mut locations = config.locations.clone();
            locations.retain(|place| is_in(place, name));
            let offers = config.locations.is_empty() || !locations.is_empty();
            let config = Config { region: name.clone(), locations, ..config.clone() };
            Ok(Region { name: name.clone(), aws: Aws::new(config, Arc::clone(clock))?, offers })
        };
        let regions = regions.iter().map(region).collect::<Result<Vec<Region>>>()?;
        if regions.is_empty() {
            return Err(CloudError::new(ErrorKind::Invalid, "set up the client", "there is no region"));
        }
        Ok(Self { regions, doubts: Doubts::default() })
    }

    /// Asks all of them at once.
    async fn ask_all<'r, T>(
        &'r self,
        ask: impl Fn(&'r Region) -> BoxFuture<'r, Result<T>>,
    ) -> impl Iterator<Item = (&'r Region, Result<T>)> {
        let answers = join_all(self.regions.iter().map(ask)).await;
        self.regions.iter().zip(answers).map(|(region, answer)| (region, answer.map_err(|error| region.named(error))))
    }

    /// Which region an id is of, and what it is called there.
    fn route<'i>(&self, id: &'i str) -> Result<(&Region, &'i str)> {
        let Some((name, rest)) = id.split_once('/') else { return Ok((self.first(), id)) };
        let found = self.regions.iter().find(|region| region.name == name).map(|region| (region, rest));
        found.ok_or_else(|| {
            let message = format!("{id} is in {name}, which is no region of the account any more: add it again");
            CloudError::new(ErrorKind::Invalid, ROUTE, message)
        })
    }

    fn first(&self) -> &Region {
        self.regions.first().expect("`new` takes no empty list")
    }

    /// What a thing of this region is called outside of it.
    fn name(&self, region: &Region, id: &str) -> String {
        if region.name == self.first().name { id.to_owned() } else { format!("{}/{id}", region.name) }
    }

    fn outside(&self, region: &Region, vm: Vm) -> Vm {
        Vm { id: ProviderId(self.name(region, &vm.id.0)), ..vm }
    }

    /// The same request in the words of this region.
    fn inside(&self, region: &Region, request: &CreateRequest) -> Result<CreateRequest> {
        let mut request = request.clone();
        if let Some(image) = &request.image {
            let (home, name) = self.route(image)?;
            if home.name != region.name {
                let message = format!("the image {image} is not in {}", region.name);
                return Err(CloudError::new(ErrorKind::Invalid, CREATE, message));
            }
            request.image = Some(name.to_owned());
        }
        Ok(request)
    }

    /// There is no room, and whoever asked will go on to the next type or place, perhaps in another region, where no token
    /// protects from a second machine: so all regions are looked at first. Where an earlier call may have made one, as
    /// in this region itself, there must be an answer.
    async fn without_room(&self, full: &Region, request: &CreateRequest, refused: CloudError) -> Result<Created> {
        let mut blind = None;
        for (region, answer) in self.ask_all(|region| region.aws.find(request.machine)).await {
            match answer {
                Ok(vms) => {
                    let is_it = |vm: &Vm| vm.installation == request.installation && vm.state != VmState::Deleting;
                    if let Some(vm) = vms.into_iter().find(is_it) {
                        let (id, name) = (request.machine, &region.name);
                        tracing::info!(machine.id = %id, "{id} had been created in {name}");
                        return Ok(Created { address: vm.address.clone(), id: self.outside(region, vm).id });
                    }
                }
                Err(error) if region.name == full.name || self.doubts.has(request.machine, &region.name) => {
                    blind = Some(error);
                }
                Err(error) => {
                    tracing::warn!(machine.id = %request.machine, %error, "a region could not be looked at")
                }
            }
        }
        let Some(error) = blind else {
            self.doubts.settle(request.machine);
            return Err(full.named(refused));
        };
        let kind = match error.kind {
            limited @ ErrorKind::RateLimited { .. } => limited,
            _ => ErrorKind::Unavailable,
        };
        let message = format!("{}; a call before may have made it, and {}", full.named(refused).message, error.message);
        Err(CloudError::new(kind, CREATE, message).ambiguous())
    }
}

impl Region {
    fn named(&self, error: CloudError) -> CloudError {
        CloudError { message: format!("{}: {}", self.name, error.message), ..error }
    }

    async fn catalogue(&self) -> Result<Catalogue> {
        if self.offers { self.aws.readable_catalogue().await } else { Ok(Catalogue::default()) }
    }

    /// Whether everything is allowed that is needed there, and which subnets of the settings it lacks.
    async fn check(&self) -> Result<Vec<String>> {
        if self.offers {
            self.aws.check().await?;
        } else {
            self.aws.list(InstallationId::generate()).await?;
        }
        self.aws.missing_subnets().await
    }
}

#[async_trait]
impl Cloud for Regions {
    fn capabilities(&self) -> Capabilities {
        self.first().aws.capabilities()
    }

    async fn check_access(&self) -> Result<()> {
        let (mut refused, mut missing) = (Vec::new(), Vec::new());
        for (region, answer) in self.ask_all(|region| Box::pin(region.check())).await {
            match answer {
                Ok(lacks) => missing.push(lacks),
                Err(error) => refused.push((region, error)),
            }
        }
        if let Some((_, first)) = refused.first() {
            let elsewhere = !missing.is_empty();
            let texts = refused.iter().map(|(region, error)| {
                // Keys are those of the whole account.
                let hint = if elsewhere && error.kind == ErrorKind::Auth { not_enabled(region) } else { String::new() };
                format!("{}{hint}", error.message)
            });
            return Err(CloudError::new(first.kind, first.doing, texts.collect::<Vec<String>>().join("; ")));
        }
        let mut nowhere = missing.pop().unwrap_or_default();
        nowhere.retain(|subnet| missing.iter().all(|lacks| lacks.contains(subnet)));
        network::all_found(&nowhere)
    }

    async fn prepare(&self, _: Size, _: Arch) -> Result<()> {
        Ok(())
    }

    async fn catalogue(&self) -> Result<Vec<Offering>> {
        Ok(self.readable_catalogue().await?.offerings)
    }

    /// That of all regions. One that cannot be read is left out, as if it were full.
    async fn readable_catalogue(&self) -> Result<Catalogue> {
        let (mut offerings, mut unread, mut lacks_prices) = (Vec::new(), None, false);
        for (_, answer) in self.ask_all(|region| Box::pin(region.catalogue())).await {
            match answer {
                Ok(found) => {
                    offerings.extend(found.offerings);
                    lacks_prices |= found.lacks_prices;
                }
                Err(error) => {
                    tracing::warn!(%error, "a region's types could not be read, and are left out");
                    unread = unread.or(Some(error));
                }
            }
        }
        match unread {
            Some(error) if offerings.is_empty() => Err(error),
            unread => Ok(Catalogue { offerings, unread, lacks_prices }),
        }
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created> {
        let place = request.offering.as_ref().map_or(&*self.first().name, |offering| &offering.location);
        let region = self.regions.iter().find(|region| is_in(place, &region.name)).ok_or_else(|| {
            CloudError::new(ErrorKind::Invalid, CREATE, format!("{place} is in no region of the account"))
        })?;
        match region.aws.create(&self.inside(region, request)?).await {
            Ok(created) => {
                self.doubts.settle(request.machine);
                Ok(Created { id: ProviderId(self.name(region, &created.id.0)), ..created })
            }
            Err(error) if error.ambiguous => {
                self.doubts.note(request.machine, &region.name);
                Err(region.named(error))
            }
            Err(error) if error.kind == ErrorKind::Capacity => self.without_room(region, request, error).await,
            Err(error) => Err(region.named(error)),
        }
    }

    async fn find(&self, machine: MachineId) -> Result<Vec<Vm>> {
        let (mut vms, mut refused) = (Vec::new(), None);
        for (region, answer) in self.ask_all(|region| region.aws.find(machine)).await {
            match answer {
                Ok(found) => vms.extend(found.into_iter().map(|vm| self.outside(region, vm))),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        // What was found is there; only that nothing was proves nothing.
        refused.filter(|_| vms.is_empty()).map_or(Ok(vms), Err)
    }

    async fn list(&self, installation: InstallationId) -> Result<Listing> {
        let (mut listing, mut refused) = (Listing { vms: Vec::new(), complete: true }, Vec::new());
        for (region, answer) in self.ask_all(|region| region.aws.list(installation)).await {
            match answer {
                Ok(found) => {
                    listing.complete &= found.complete;
                    listing.vms.extend(found.vms.into_iter().map(|vm| self.outside(region, vm)));
                }
                Err(error) => refused.push(error),
            }
        }
        listing.complete &= all_read(self.regions.len(), refused)?;
        Ok(listing)
    }

    async fn installations(&self) -> Result<BTreeMap<InstallationId, usize>> {
        let mut sums = BTreeMap::new();
        for (_, answer) in self.ask_all(|region| region.aws.installations()).await {
            for (installation, machines) in answer? {
                *sums.entry(installation).or_default() += machines;
            }
        }
        Ok(sums)
    }

    async fn delete(&self, id: &ProviderId) -> Result<DeleteProgress> {
        let (region, id) = self.route(&id.0)?;
        region.aws.delete(&ProviderId(id.to_owned())).await.map_err(|error| region.named(error))
    }

    async fn hibernate(&self, id: &ProviderId) -> Result<SleepProgress> {
        let (region, id) = self.route(&id.0)?;
        region.aws.hibernate(&ProviderId(id.to_owned())).await.map_err(|error| region.named(error))
    }

    async fn wake(&self, id: &ProviderId) -> Result<Vm> {
        let (region, id) = self.route(&id.0)?;
        let vm = region.aws.wake(&ProviderId(id.to_owned())).await.map_err(|error| region.named(error))?;
        Ok(self.outside(region, vm))
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureProgress> {
        let (region, id) = self.route(&request.machine.0)?;
        let request = CaptureRequest { machine: ProviderId(id.to_owned()), ..request.clone() };
        Ok(match region.aws.capture(&request).await.map_err(|error| region.named(error))? {
            CaptureProgress::InProgress => CaptureProgress::InProgress,
            // It is nowhere else, whatever that region says of itself.
            CaptureProgress::Ready(image) => CaptureProgress::Ready(Image {
                reference: self.name(region, &image.reference),
                locations: vec![region.name.clone()],
            }),
        })
    }

    /// In all regions, whatever becomes of one.
    async fn protect(&self, installation: InstallationId, port: u16) -> Result<()> {
        let mut outcome = Ok(());
        for (_, answer) in self.ask_all(|region| region.aws.protect(installation, port)).await {
            outcome = outcome.and(answer);
        }
        outcome
    }

    async fn list_residue(&self, installation: InstallationId) -> Result<Residues> {
        let (mut residues, mut refused) = (Residues { items: Vec::new(), complete: true }, Vec::new());
        for (region, answer) in self.ask_all(|region| region.aws.list_residue(installation)).await {
            match answer {
                Ok(found) => {
                    residues.complete &= found.complete;
                    let outside = |item: Residue| Residue { id: self.name(region, &item.id), ..item };
                    residues.items.extend(found.items.into_iter().map(outside));
                }
                Err(error) => refused.push(error),
            }
        }
        residues.complete &= all_read(self.regions.len(), refused)?;
        Ok(residues)
    }

    async fn delete_residue(&self, residue: &Residue) -> Result<DeleteProgress> {
        let (region, id) = self.route(&residue.id)?;
        let residue = Residue { id: id.to_owned(), ..residue.clone() };
        region.aws.delete_residue(&residue).await.map_err(|error| region.named(error))
    }

    async fn console_tail(&self, id: &ProviderId) -> Result<Option<String>> {
        let (region, id) = self.route(&id.0)?;
        region.aws.console_tail(&ProviderId(id.to_owned())).await.map_err(|error| region.named(error))
    }
}

/// Whether every region answered; an error when none did.
fn all_read(regions: usize, mut refused: Vec<CloudError>) -> Result<bool> {
    for error in &refused {
        tracing::warn!(%error, "a region could not be read: the list is incomplete");
    }
    if refused.len() < regions { Ok(refused.is_empty()) } else { Err(refused.swap_remove(0)) }
}

/// The keys are refused here and good elsewhere.
fn not_enabled(region: &Region) -> String {
    let name = &region.name;
    format!("; the keys are good in other regions, so {name} is not enabled for this account: enable it there first")
}

/// A refusal of the keys, with a hint where the region may be what they are not good for: all that came after these are
/// closed until an account enables them.
pub(super) fn hinted(region: &str, refused: Refused) -> CloudError {
    const OPEN: [&str; 17] = [
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-northeast-3",
        "ap-south-1",
        "ap-southeast-1",
        "ap-southeast-2",
        "ca-central-1",
        "eu-central-1",
        "eu-north-1",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "sa-east-1",
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
    ];
    let error = CloudError::from(refused);
    let apart = ["cn-", "us-gov-", "us-iso", "eu-iso", "eusc-"].iter().any(|start| region.starts_with(start));
    if error.kind != ErrorKind::Auth || apart || OPEN.contains(&region) {
        return error;
    }
    let message =
        format!("{}; an account must enable {region} before it can be used: see whether it did", error.message);
    CloudError { message, ..error }
}
