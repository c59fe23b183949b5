//! What can be had: instance types in their zones. Of some hundreds the few are offered that a machine of ours can sensibly
//! be: for each size the cheapest, or where no price is known the smallest, that are big enough. So a region that is full
//! is known to be full after some tries, and nobody gets a giant because everything else was taken.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use aws_sdk_ec2::types::{InstanceTypeInfo, LocationType, UsageClassType};
use stagely_domain::machine::{Arch, Size};

use crate::aws::Aws;
use crate::aws::actions::{DESCRIBE_INSTANCE_TYPE_OFFERINGS, DESCRIBE_INSTANCE_TYPES};
use crate::aws::image::machine;
use crate::catalogue::candidates;
use crate::{Offering, Result};

const DOING: &str = "read the instance types";
/// Of so many types for each size and processor the price is looked up: the cheapest are among the smallest.
const PRICED: usize = 40;
/// So many of them are offered.
const OFFERED: usize = 8;
const SIZES: [Size; 3] = [Size::Small, Size::Medium, Size::Large];

/// What a type is, wherever it is sold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind {
    arch: Arch,
    vcpus: u32,
    memory_mib: u64,
}

impl Aws {
    /// The types that are worth asking for, in every zone in which they are and there is a subnet, sorted.
    pub(super) async fn offerings(&self) -> Result<Vec<Offering>> {
        let subnets = self.subnets().await?;
        let kinds = self.kinds().await?;
        let mut offerings = Vec::new();
        for (name, zone) in self.sold().await? {
            let Some(kind) = kinds.get(&name).filter(|_| subnets.iter().any(|subnet| subnet.zone == zone)) else {
                continue;
            };
            let Kind { arch, vcpus, memory_mib } = kind.clone();
            offerings.push(Offering { name, location: zone, arch, vcpus, memory_mib, price: None, available: true });
        }
        let prices = self.prices(&smallest(&offerings)).await;
        for offering in &mut offerings {
            offering.price = prices.get(&offering.name).cloned();
        }
        let best = best(&offerings);
        offerings.retain(|offering| best.contains(&offering.name));
        offerings.sort_by(|one, other| (&one.name, &one.location).cmp(&(&other.name, &other.location)));
        Ok(offerings)
    }

    async fn kinds(&self) -> Result<HashMap<String, Kind>> {
        let request = self.client.ec2.describe_instance_types().max_results(100).into_paginator();
        let stream = request.stop_on_duplicate_token(false).send();
        let pages = self.client.pages(DOING, &DESCRIBE_INSTANCE_TYPES, stream).await?;
        Ok(pages.iter().flat_map(|page| page.instance_types()).filter_map(kind).collect())
    }

    /// Type and zone.
    async fn sold(&self) -> Result<Vec<(String, String)>> {
        let request = self.client.ec2.describe_instance_type_offerings();
        let request = request.location_type(LocationType::AvailabilityZone).max_results(1000);
        let stream = request.into_paginator().stop_on_duplicate_token(false).send();
        let pages = self.client.pages(DOING, &DESCRIBE_INSTANCE_TYPE_OFFERINGS, stream).await?;
        let found = pages.iter().flat_map(|page| page.instance_type_offerings()).filter_map(|offering| {
            Some((offering.instance_type()?.as_str().to_owned(), offering.location()?.to_owned()))
        });
        Ok(found.collect())
    }
}

/// The types that are hardly bigger than a size asks for.
fn smallest(offerings: &[Offering]) -> BTreeSet<String> {
    // Memory before processors, since those with few of them and much memory are dear; then those whose processors are
    // shared, `t3` and the like, which are the cheapest of their size.
    fn key(offering: &Offering) -> (u64, u32, bool, &str) {
        (offering.memory_mib, offering.vcpus, !offering.name.starts_with('t'), &offering.name)
    }
    of_each_size(offerings, PRICED, |one, other| key(one).cmp(&key(other)))
}

/// The types that would be tried first for each size.
fn best(offerings: &[Offering]) -> BTreeSet<String> {
    of_each_size(offerings, OFFERED, |_, _| Ordering::Equal)
}

/// The first `count` types that are big enough for each size on each processor.
fn of_each_size(
    offerings: &[Offering],
    count: usize,
    order: impl Fn(&Offering, &Offering) -> Ordering,
) -> BTreeSet<String> {
    let mut chosen = BTreeSet::new();
    for (size, arch) in SIZES.into_iter().flat_map(|size| [(size, Arch::Amd64), (size, Arch::Arm64)]) {
        let mut fitting = candidates(offerings, size, arch, &[]);
        fitting.sort_by(|one, other| order(one, other));
        let mut names: Vec<&str> = fitting.into_iter().map(|offering| &*offering.name).collect();
        // The same type in other zones comes right after it, but for a price that differs, which none does in a region.
        names.dedup();
        chosen.extend(names.into_iter().take(count).map(str::to_owned));
    }
    chosen
}

/// A type that can be a machine of ours: of today, virtual, and with one of our processors.
fn kind(found: &InstanceTypeInfo) -> Option<(String, Kind)> {
    let today = found.current_generation().unwrap_or(true) && !found.bare_metal().unwrap_or(false);
    let classes = found.supported_usage_classes();
    let on_demand = classes.is_empty() || classes.contains(&UsageClassType::OnDemand);
    if !today || !on_demand {
        return None;
    }
    let processors = found.processor_info()?.supported_architectures();
    let arch = [Arch::Amd64, Arch::Arm64]
        .into_iter()
        .find(|arch| processors.iter().any(|processor| processor.as_str() == machine(*arch)))?;
    let vcpus = u32::try_from(found.v_cpu_info()?.default_v_cpus()?).ok()?;
    let memory_mib = u64::try_from(found.memory_info()?.size_in_mib()?).ok()?;
    Some((found.instance_type()?.as_str().to_owned(), Kind { arch, vcpus, memory_mib }))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::builders::InstanceTypeInfoBuilder;
    use aws_sdk_ec2::types::{ArchitectureType, InstanceType, InstanceTypeInfo, MemoryInfo, ProcessorInfo, VCpuInfo};
    use stagely_domain::machine::Arch;

    use super::{Kind, OFFERED, best, kind, smallest};
    use crate::{Offering, Price};

    fn info(name: &str, processor: &str) -> InstanceTypeInfoBuilder {
        InstanceTypeInfo::builder()
            .instance_type(InstanceType::from(name))
            .processor_info(ProcessorInfo::builder().supported_architectures(ArchitectureType::from(processor)).build())
            .v_cpu_info(VCpuInfo::builder().default_v_cpus(2).build())
            .memory_info(MemoryInfo::builder().size_in_mib(4096).build())
    }

    #[test]
    fn only_what_can_be_a_machine_of_ours_is_offered() {
        let expected = |arch| Some(Kind { arch, vcpus: 2, memory_mib: 4096 });
        let read = |info: InstanceTypeInfoBuilder| kind(&info.build()).map(|(_, kind)| kind);
        assert_eq!(read(info("t3.medium", "x86_64")), expected(Arch::Amd64));
        assert_eq!(read(info("t4g.medium", "arm64")), expected(Arch::Arm64));
        assert_eq!(read(info("x99.medium", "a-newer-one")), None);
        assert_eq!(read(info("mac1", "x86_64_mac")), None);
        assert_eq!(read(info("m1.medium", "x86_64").current_generation(false)), None);
        assert_eq!(read(info("m7i.metal", "x86_64").bare_metal(true)), None);
        assert_eq!(kind(&InstanceTypeInfo::builder().build()), None);
    }

    fn offering(name: String, location: &str, vcpus: u32, gib: u64, micros: Option<u64>) -> Offering {
        let price = micros.map(|micros_per_hour| Price { micros_per_hour, currency: "USD".to_owned() });
        let (location, memory_mib) = (location.to_owned(), gib * 1024);
        Offering { name, location, arch: Arch::Amd64, vcpus, memory_mib, price, available: true }
    }

    #[test]
    fn of_hundreds_of_types_the_cheapest_of_each_size_are_offered() {
        let mut all = Vec::new();
        for zone in ["eu-central-1a", "eu-central-1b"] {
            for nth in 0..50 {
                all.push(offering(format!("c{nth:02}.xlarge"), zone, 4, 8, Some(200_000 - nth)));
                all.push(offering(format!("giant{nth:02}"), zone, 96, 768, None));
            }
            all.push(offering("t3a.small".to_owned(), zone, 2, 2, Some(21_600)));
        }
        let asked = smallest(&all);
        assert!(asked.contains("t3a.small") && asked.len() == 41, "{asked:?}");
        let offered = best(&all);
        // For small: it and the seven cheapest; for the others the eight cheapest.
        assert!(offered.contains("t3a.small") && offered.contains("c49.xlarge") && !offered.contains("c00.xlarge"));
        assert_eq!((offered.len(), OFFERED), (9, 8), "{offered:?}");
    }
}
