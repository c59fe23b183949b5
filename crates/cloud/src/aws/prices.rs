//! Prices on demand, by the Price List Query API. It is one list for all regions, kept in one of them, and long: only the
//! types that may be chosen are looked up, some dozens at once, and once a day. Nothing depends on it: without a price a
//! type is as good as before, and only comes after those that have one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use serde_json::{Value, json};
use stagely_domain::clock::Clock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::aws::actions::GET_PRODUCTS;
use crate::aws::json::{Json, garbled};
use crate::aws::{Aws, Config};
use crate::catalogue::micros;
use crate::{ErrorKind, Price, Result};

const DOING: &str = "read the prices";
const TARGET: &str = "AWSPriceListService.GetProducts";
/// How long prices are believed.
const KNOWN: Duration = Duration::from_secs(24 * 3600);
/// The most that the provider puts on a page.
const PER_PAGE: usize = 100;
/// So many types are asked for at once: their names fit into the 1024 characters that a filter may have.
const AT_ONCE: usize = 48;
/// More pages than so many types can fill.
const MAX_PAGES: usize = 10;

/// The list, where the account's part of the cloud has one.
pub(super) struct PriceList(Json);

impl PriceList {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Option<Self>> {
        let Some((region, url)) = seat(&config.region) else { return Ok(None) };
        Json::new(config, "pricing", region, url, clock).map(|json| Some(Self(json)))
    }

    pub(super) async fn ask(&self, doing: &'static str, credentials: Credentials, body: &Value) -> Result<Value> {
        self.0.call(doing, &GET_PRODUCTS, TARGET, credentials, body).await
    }
}

/// Where the list with this region's prices is.
fn seat(region: &str) -> Option<(&'static str, &'static str)> {
    if region.starts_with("cn-") {
        return Some(("cn-northwest-1", "https://api.pricing.cn-northwest-1.amazonaws.com.cn"));
    }
    // These parts of the cloud are for themselves, and the list is not in them.
    let apart = ["us-gov-", "us-iso", "eu-iso", "eusc-"].iter().any(|start| region.starts_with(start));
    (!apart).then_some(("us-east-1", "https://api.pricing.us-east-1.amazonaws.com"))
}

/// What was read last.
#[derive(Default)]
pub(super) struct Prices(Mutex<Known>);

#[derive(Default)]
struct Known {
    read_at: Option<Instant>,
    asked: BTreeSet<String>,
    prices: HashMap<String, Price>,
    /// Whether it was said that they cannot be read.
    told: bool,
    /// Whether the last look failed, and another may not.
    lack: bool,
}

impl Prices {
    /// Whether the last look failed, and another may not.
    pub(super) async fn lack(&self) -> bool {
        self.0.lock().await.lack
    }
}

impl Aws {
    /// What these types cost an hour in this region, as far as that is known. No failure is worth a machine.
    pub(super) async fn prices(&self, types: &BTreeSet<String>) -> HashMap<String, Price> {
        let mut known = self.prices.0.lock().await;
        let is_fresh = known.read_at.is_some_and(|at| at.elapsed() < KNOWN) && types.is_subset(&known.asked);
        if !is_fresh {
            match self.look_for_prices(types).await {
                Ok(prices) => {
                    let (read_at, asked) = (Some(Instant::now()), types.clone());
                    *known = Known { read_at, asked, prices, ..Known::default() };
                }
                Err(error) => {
                    if !known.told {
                        let region = &self.config.region;
                        tracing::warn!(%error, "prices in {region} are not known: nothing is said of cost there");
                    }
                    (known.told, known.lack) = (true, error.kind != ErrorKind::Permission);
                }
            }
        }
        known.prices.clone()
    }

    /// Asks for one price, to see whether that is allowed.
    pub(super) async fn try_prices(&self) -> Result<()> {
        let body = question(&self.config.region, &["t3.small"], None);
        self.client.prices(DOING, &GET_PRODUCTS, &body).await.map(drop)
    }

    async fn look_for_prices(&self, types: &BTreeSet<String>) -> Result<HashMap<String, Price>> {
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        let mut prices = HashMap::new();
        for types in types.chunks(AT_ONCE) {
            let mut token = None;
            for page in 1.. {
                let body = question(&self.config.region, types, token.as_deref());
                let Some(answer) = self.client.prices(DOING, &GET_PRODUCTS, &body).await? else { break };
                let (found, next) = read(&answer)?;
                for (name, price) in found {
                    // One that is sold under two names costs the dearer of them, so that no cost is told too low.
                    let entry = prices.entry(name).or_insert_with(|| price.clone());
                    *entry = entry.clone().max(price);
                }
                token = next;
                if token.is_none() {
                    break;
                }
                if page >= MAX_PAGES {
                    return Err(garbled(DOING, &GET_PRODUCTS));
                }
            }
        }
        Ok(prices)
    }
}

/// Plain Linux on shared hardware, paid for by use.
fn question(region: &str, types: &[&str], token: Option<&str>) -> Value {
    let filter = |kind: &str, field: &str, value: &str| json!({"Type": kind, "Field": field, "Value": value});
    let mut body = json!({
        "ServiceCode": "AmazonEC2",
        "FormatVersion": "aws_v1",
        "MaxResults": PER_PAGE,
        "Filters": [
            filter("TERM_MATCH", "regionCode", region),
            filter("TERM_MATCH", "operatingSystem", "Linux"),
            filter("TERM_MATCH", "tenancy", "Shared"),
            filter("TERM_MATCH", "preInstalledSw", "NA"),
            filter("TERM_MATCH", "capacitystatus", "Used"),
            filter("TERM_MATCH", "marketoption", "OnDemand"),
            filter("ANY_OF", "instanceType", &types.join(",")),
        ],
    });
    if let Some(token) = token {
        body["NextToken"] = json!(token);
    }
    body
}

/// One answer: types with their prices, and the token of the page after it.
type Page = (Vec<(String, Price)>, Option<String>);

fn read(answer: &Value) -> Result<Page> {
    let list = answer["PriceList"].as_array().ok_or_else(|| garbled(DOING, &GET_PRODUCTS))?;
    let mut found = Vec::new();
    for entry in list {
        // Each is a text that is JSON itself.
        let product = entry.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let product = product.ok_or_else(|| garbled(DOING, &GET_PRODUCTS))?;
        let Some(name) = product["product"]["attributes"]["instanceType"].as_str() else { continue };
        found.extend(price(&product).map(|price| (name.to_owned(), price)));
    }
    let next = answer["NextToken"].as_str().filter(|token| !token.is_empty());
    Ok((found, next.map(str::to_owned)))
}

/// The price of an hour on demand, in the currency in which it is told. Nothing that is sold here is free: a zero is the
/// price of something else.
fn price(product: &Value) -> Option<Price> {
    let terms = product["terms"]["OnDemand"].as_object()?.values();
    let dimensions = terms.filter_map(|term| term["priceDimensions"].as_object()).flat_map(|of_term| of_term.values());
    let hourly = dimensions.filter(|dimension| dimension["unit"] == "Hrs");
    let told = hourly.filter_map(|dimension| dimension["pricePerUnit"].as_object()).flatten();
    let prices = told.filter_map(|(currency, amount)| {
        let micros_per_hour = micros(amount.as_str()?).filter(|micros| *micros > 0)?;
        Some(Price { micros_per_hour, currency: currency.clone() })
    });
    prices.max()
}

#[cfg(test)]
mod tests;
