//! A price list as the Price List Query API tells it, which moto does not have. The prices are examples of the size that
//! such prices had in 2026; what counts is their shape and their order. Python's client of the provider judges it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

/// Dollars an hour, in two regions.
pub const TABLE: [(&str, &str, &str); 9] = [
    ("t3.small", "0.0240000000", "0.0228000000"),
    ("t3a.small", "0.0216000000", "0.0204000000"),
    ("t4g.small", "0.0192000000", "0.0184000000"),
    ("t3.medium", "0.0480000000", "0.0456000000"),
    ("t3a.medium", "0.0432000000", "0.0408000000"),
    ("t4g.medium", "0.0384000000", "0.0368000000"),
    ("t3.xlarge", "0.1920000000", "0.1824000000"),
    ("t3a.xlarge", "0.1728000000", "0.1632000000"),
    ("t4g.xlarge", "0.1536000000", "0.1472000000"),
];
/// It may put less on a page than it was asked for.
const PAGE: usize = 4;

/// The answer to GetProducts.
pub fn answer(body: &[u8]) -> (StatusCode, String) {
    let asked: Value = serde_json::from_slice(body).unwrap();
    match products(&asked) {
        Ok(answer) => (StatusCode::OK, answer.to_string()),
        Err(message) => {
            let refusal = json!({"__type": "InvalidParameterException", "Message": message});
            (StatusCode::BAD_REQUEST, refusal.to_string())
        }
    }
}

fn products(asked: &Value) -> Result<Value, &'static str> {
    if asked["ServiceCode"] != "AmazonEC2" || asked["FormatVersion"] != "aws_v1" {
        return Err("unknown service or format");
    }
    let most = asked["MaxResults"].as_u64().unwrap_or(100);
    if !(1..=100).contains(&most) {
        return Err("MaxResults must be from 1 to 100");
    }
    let from = match asked["NextToken"].as_str() {
        None => 0,
        Some(token) => read_token(token).ok_or("The NextToken is invalid")?,
    };
    let filters = asked["Filters"].as_array().ok_or("no filters")?;
    let mut found = Vec::new();
    for product in all() {
        let mut fits = true;
        for filter in filters {
            fits &= matches(&product["product"]["attributes"], filter)?;
        }
        if fits {
            found.push(Value::String(product.to_string()));
        }
    }
    let to = found.len().min(from + PAGE.min(usize::try_from(most).unwrap()));
    let mut answer = json!({"FormatVersion": "aws_v1", "PriceList": found[from.min(to)..to]});
    if to < found.len() {
        answer["NextToken"] = json!(STANDARD.encode(format!("from {to}")));
    }
    Ok(answer)
}

fn read_token(token: &str) -> Option<usize> {
    String::from_utf8(STANDARD.decode(token).ok()?).ok()?.strip_prefix("from ")?.parse().ok()
}

fn matches(attributes: &Value, filter: &Value) -> Result<bool, &'static str> {
    let (field, value) = (filter["Field"].as_str().unwrap_or_default(), filter["Value"].as_str().unwrap_or_default());
    if field.is_empty() || value.is_empty() || value.len() > 1024 {
        return Err("a filter has a field and a value of 1 to 1024 characters");
    }
    let has = attributes[field].as_str().unwrap_or_default();
    match filter["Type"].as_str() {
        Some("TERM_MATCH") => Ok(has == value),
        Some("ANY_OF") => Ok(value.split(',').any(|one| one == has)),
        _ => Err("unknown type of filter"),
    }
}

/// Each type in each region, and what a careless question would get as well: Windows, dedicated hardware, a reservation
/// that is not used.
fn all() -> Vec<Value> {
    let mut all = Vec::new();
    for (name, frankfurt, dublin) in TABLE {
        for (region, dollars) in [("eu-central-1", frankfurt), ("eu-west-1", dublin)] {
            all.push(product(name, region, ["Linux", "Shared", "Used"], dollars));
            all.push(product(name, region, ["Windows", "Shared", "Used"], "0.0001000000"));
            all.push(product(name, region, ["Linux", "Dedicated", "Used"], "0.0002000000"));
            all.push(product(name, region, ["Linux", "Shared", "AllocatedCapacityReservation"], "0.0000000000"));
        }
    }
    all
}

fn product(name: &str, region: &str, [system, tenancy, status]: [&str; 3], dollars: &str) -> Value {
    let sku: String = format!("{name}{region}{system}{tenancy}{status}").to_uppercase().replace(['.', '-'], "");
    let (on_demand, reserved) = (format!("{sku}.JRTCKXETXF"), format!("{sku}.4NA7Y494T4"));
    let rate = format!("{on_demand}.6YS6EN2CT7");
    json!({
        "product": {
            "productFamily": "Compute Instance",
            "attributes": {
                "servicecode": "AmazonEC2", "servicename": "Amazon Elastic Compute Cloud", "instanceType": name,
                "regionCode": region, "locationType": "AWS Region", "operatingSystem": system, "tenancy": tenancy,
                "preInstalledSw": "NA", "capacitystatus": status, "marketoption": "OnDemand",
                "licenseModel": "No License required", "operation": "RunInstances", "currentGeneration": "Yes",
            },
            "sku": sku,
        },
        "serviceCode": "AmazonEC2",
        "terms": {
            "OnDemand": {
                (on_demand.clone()): {
                    "priceDimensions": {
                        (rate.clone()): {
                            "unit": "Hrs", "beginRange": "0", "endRange": "Inf", "appliesTo": [], "rateCode": rate,
                            "description": format!("${dollars} per On Demand {system} {name} Instance Hour"),
                            "pricePerUnit": {"USD": dollars},
                        },
                    },
                    "sku": sku, "effectiveDate": "2026-11-01T00:00:00Z", "offerTermCode": "JRTCKXETXF",
                    "termAttributes": {},
                },
            },
            "Reserved": {
                (reserved.clone()): {
                    "priceDimensions": {
                        (format!("{reserved}.6YS6EN2CT7")): {
                            "unit": "Hrs", "beginRange": "0", "endRange": "Inf", "appliesTo": [],
                            "rateCode": format!("{reserved}.6YS6EN2CT7"), "pricePerUnit": {"USD": "0.0003000000"},
                            "description": "Linux/UNIX (Amazon VPC), reserved instance applied",
                        },
                    },
                    "sku": sku, "effectiveDate": "2026-11-01T00:00:00Z", "offerTermCode": "4NA7Y494T4",
                    "termAttributes": {"LeaseContractLength": "3yr", "PurchaseOption": "No Upfront"},
                },
            },
        },
        "version": "20261120000000",
        "publicationDate": "2026-11-20T00:00:00Z",
    })
}
