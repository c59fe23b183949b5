//! Prices: the cheapest comes first, and without them machines are made all the same.

use std::collections::BTreeMap;

use stagely_cloud::catalogue::candidates;
use stagely_cloud::{Cloud, ErrorKind, Offering};
use stagely_domain::machine::{Arch, Size};

use super::pricelist::TABLE;
use super::{ONE_AWAKE, Rig, config, provider};
use crate::fault_proxy::{Fault, Seen};
use crate::judges::python;

fn is_question(seen: &Seen) -> bool {
    seen.headers.get("x-amz-target").is_some_and(|target| target == "AWSPriceListService.GetProducts")
}

/// Type to price of what has one.
fn read(offerings: &[Offering]) -> BTreeMap<String, u64> {
    let priced = offerings.iter().filter_map(|one| Some((one.name.clone(), one.price.as_ref()?.micros_per_hour)));
    priced.collect()
}

fn first(offerings: &[Offering], size: Size, arch: Arch) -> &str {
    &candidates(offerings, size, arch, &[])[0].name
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn the_cheapest_that_fits_comes_first_in_whole_pages_and_the_rest_after_it() {
    let rig = Rig::start().await;
    let all = rig.cloud.catalogue().await.unwrap();
    assert_eq!(first(&all, Size::Small, Arch::Amd64), "t3a.small");
    assert_eq!(first(&all, Size::Medium, Arch::Amd64), "t3a.medium");
    assert_eq!(first(&all, Size::Large, Arch::Amd64), "t3a.xlarge");
    assert_eq!(first(&all, Size::Small, Arch::Arm64), "t4g.small");
    assert!(all.iter().all(|one| one.price.as_ref().is_none_or(|price| price.currency == "USD")));
    let prices = read(&all);
    assert_eq!(prices.len(), TABLE.len(), "each page was read: {prices:?}");
    assert_eq!(prices["t3.small"], 24_000);
    assert!(all.iter().any(|one| one.price.is_none()), "what has no price is offered as well, and comes later");
    // The same price in every zone, and a catalogue that is read again asks for none.
    let small: Vec<_> = all.iter().filter(|one| one.name == "t3.small").collect();
    assert!(small.len() > 1 && small.iter().all(|one| one.price == small[0].price));
    rig.proxy.calm();
    assert_eq!(rig.cloud.catalogue().await.unwrap(), all);
    assert!(!rig.proxy.seen().iter().any(is_question));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn pythons_client_asks_and_reads_as_we_do() {
    let rig = Rig::start().await;
    let all = rig.cloud.catalogue().await.unwrap();
    let seen: Vec<Seen> = rig.proxy.seen().into_iter().filter(is_question).collect();
    assert!(seen.iter().all(|one| one.headers["content-type"] == "application/x-amz-json-1.1"));
    let scope = |one: &Seen| one.headers["authorization"].to_str().unwrap().contains("/us-east-1/pricing/aws4_request");
    assert!(seen.iter().all(scope));
    let asked: Vec<serde_json::Value> = seen.iter().map(|one| serde_json::from_slice(&one.body).unwrap()).collect();
    let directory = tempfile::tempdir().unwrap();
    let (asked_file, read_file) = (directory.path().join("asked.json"), directory.path().join("read.json"));
    std::fs::write(&asked_file, serde_json::to_string(&asked).unwrap()).unwrap();
    std::fs::write(&read_file, serde_json::to_string(&read(&all)).unwrap()).unwrap();
    python("aws/judge.py", &[&rig.moto.url, asked_file.to_str().unwrap(), read_file.to_str().unwrap()]).await;
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn prices_that_cannot_be_read_cost_no_machine() {
    let unwell = Fault::Answer { status: 500, headers: vec![], body: "{\"__type\":\"InternalErrorException\"}".into() };
    let circle = Fault::Answer { status: 200, headers: vec![], body: "{\"PriceList\":[],\"NextToken\":\"a\"}".into() };
    for fault in [Fault::html(502), unwell, circle, Fault::Garble, Fault::LoseAnswer] {
        let rig = Rig::start().await;
        rig.proxy.harm_when(is_question, fault.clone());
        let read_first = rig.cloud.readable_catalogue().await.unwrap();
        let all = read_first.offerings;
        assert!(!all.is_empty() && all.iter().all(|one| one.price.is_none()), "{fault:?}");
        assert!(read_first.lacks_prices, "{fault:?}: it is asked again soon");
        let asked = rig.proxy.seen().iter().filter(|seen| is_question(seen)).count();
        assert!((1..=10).contains(&asked), "{asked}");
        let request = rig.request().await;
        rig.cloud.create(&request).await.unwrap();
        assert_eq!(rig.bill(request.machine).await, ONE_AWAKE);
        // They come with the next catalogue.
        rig.proxy.calm();
        let next = rig.cloud.readable_catalogue().await.unwrap();
        assert_eq!((read(&next.offerings).len(), next.lacks_prices), (TABLE.len(), false), "{fault:?}");
    }
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask contract"]
async fn the_permission_to_read_prices_is_optional() {
    let rig = Rig::start().await;
    rig.moto.world().knobs.denied = ["GetProducts"].into();
    rig.cloud.check_access().await.unwrap();
    let catalogue = rig.cloud.readable_catalogue().await.unwrap();
    let all = catalogue.offerings;
    assert!(read(&all).is_empty());
    assert!(!catalogue.lacks_prices, "nobody gives the permission within a minute");
    // The smallest that fits, as it was before there were prices.
    let chosen = candidates(&all, Size::Medium, Arch::Amd64, &[])[0];
    assert_eq!((chosen.vcpus, chosen.memory_mib), (Size::Medium.min_vcpus(), Size::Medium.min_memory_mib()));
    // With others it is named apart from them.
    rig.moto.world().knobs.denied = ["GetProducts", "RunInstances"].into();
    let error = provider(config(&rig.proxy.url())).check_access().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permission);
    assert!(error.message.contains("lacks ec2:RunInstances; optional, for prices: pricing:GetProducts"), "{error}");
}
