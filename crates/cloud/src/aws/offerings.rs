//! What can be had: instance types in their zones. Prices are told by another service, which is not asked: among types
//! without a price the smallest that fits is chosen.

use std::collections::HashMap;

use aws_sdk_ec2::types::{InstanceTypeInfo, LocationType, UsageClassType};
use stagely_domain::machine::Arch;

use crate::aws::Aws;
use crate::aws::actions::{DESCRIBE_INSTANCE_TYPE_OFFERINGS, DESCRIBE_INSTANCE_TYPES};
use crate::aws::image::machine;
use crate::{Offering, Result};

const DOING: &str = "read the instance types";

/// What a type is, wherever it is sold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind {
    arch: Arch,
    vcpus: u32,
    memory_mib: u64,
}

impl Aws {
    /// Every type in every zone in which there is a subnet, sorted.
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

    use super::{Kind, kind};

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
}
