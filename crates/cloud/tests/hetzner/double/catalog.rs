//! What the double sells.

use serde_json::{Value, json};

use super::Query;

pub const PLACES: [&str; 3] = ["fsn1", "nbg1", "hel1"];

/// Name, architecture, processors, memory and disk in GB, price per hour in the first place.
const TYPES: [(&str, &str, u32, u32, u32, &str); 7] = [
    ("cx22", "x86", 2, 4, 40, "0.0060"),
    ("cx23", "x86", 2, 4, 40, "0.0048"),
    ("cx33", "x86", 4, 8, 80, "0.0104"),
    ("cx43", "x86", 8, 16, 160, "0.0190"),
    ("cpx12", "x86", 1, 2, 40, "0.0110"),
    ("cax11", "arm", 2, 4, 40, "0.0053"),
    ("cax21", "arm", 4, 8, 80, "0.0100"),
];
/// It cannot be had any more.
const RETIRED: &str = "cx22";

pub fn server_types(query: &Query<'_>) -> Vec<Value> {
    let wanted = query.get("name");
    TYPES
        .iter()
        .map(|kind| kind.0)
        .filter(|name| wanted.as_deref().is_none_or(|wanted| wanted == *name))
        .map(server_type)
        .collect()
}

/// # Panics
/// When there is no such type.
pub fn server_type(name: &str) -> Value {
    let index = TYPES.iter().position(|kind| kind.0 == name).unwrap();
    let (name, arch, cores, memory, disk, price) = TYPES[index];
    let retired = json!({"announced": "2025-10-01T00:00:00Z", "unavailable_after": "2025-12-31T00:00:00Z"});
    let deprecation = if name == RETIRED { retired } else { Value::Null };
    let places = PLACES.iter().enumerate().filter(|(_, place)| sells(name, place));
    let locations = places.clone().map(|(id, place)| {
        json!({"id": id + 1, "name": place, "deprecation": deprecation, "available": true, "recommended": id == 0})
    });
    let money = |net: &str| json!({"net": net, "gross": format!("{net}19")});
    let prices = places.map(|(id, place)| {
        // Each place is a little dearer than the one before it.
        let hourly = format!("{price}{id}");
        json!({
            "location": place, "price_hourly": money(&hourly), "price_monthly": money("4.0000"),
            "included_traffic": 20_000_000_000_000_u64, "price_per_tb_traffic": money("1.0000"),
        })
    });
    json!({
        "id": index + 100, "name": name, "description": name.to_uppercase(), "category": "Shared vCPU",
        "cores": cores, "memory": f64::from(memory), "disk": disk, "cpu_type": "shared", "architecture": arch,
        "storage_type": "local", "deprecated": name == RETIRED, "deprecation": deprecation,
        "locations": locations.collect::<Vec<_>>(), "prices": prices.collect::<Vec<_>>(),
    })
}

pub fn is_type(name: &str) -> bool {
    name != RETIRED && TYPES.iter().any(|kind| kind.0 == name)
}

/// Whether a type is to be had in a place: those of the second processor are not in the last.
pub fn sells(name: &str, place: &str) -> bool {
    PLACES.contains(&place) && !(name.starts_with("cax") && place == "hel1")
}

pub fn locations() -> Vec<Value> {
    PLACES.iter().map(|name| location(name)).collect()
}

pub fn location(name: &str) -> Value {
    let id = PLACES.iter().position(|place| *place == name).unwrap() + 1;
    json!({
        "id": id, "name": name, "description": format!("Park {id}"), "country": "DE", "city": "Falkenstein",
        "latitude": 50.47612, "longitude": 12.370071, "network_zone": "eu-central",
    })
}

pub fn pricing() -> Value {
    let money = json!({"net": "1.0000", "gross": "1.1900"});
    let prices: Vec<Value> =
        PLACES.iter().map(|place| json!({"location": place, "price_hourly": money, "price_monthly": money})).collect();
    let monthly: Vec<Value> = PLACES.iter().map(|place| json!({"location": place, "price_monthly": money})).collect();
    let types: Vec<Value> = TYPES
        .iter()
        .map(|kind| {
            let sold = server_type(kind.0);
            json!({"id": sold["id"], "name": sold["name"], "prices": sold["prices"]})
        })
        .collect();
    json!({
        "currency": "EUR", "vat_rate": "19.00",
        "floating_ip": {"price_monthly": money},
        "floating_ips": [{"type": "ipv4", "prices": monthly}],
        "image": {"price_per_gb_month": money},
        "load_balancer_types": [],
        "primary_ips": [{"type": "ipv4", "prices": prices}],
        "server_backup": {"percentage": "20.00"},
        "server_types": types,
        "volume": {"price_per_gb_month": money},
    })
}
