//! What is sold, and where.

use serde_json::{Value, json};

pub const REGIONS: [&str; 4] = ["ams3", "fra1", "nyc3", "tor1"];
/// No new droplets there.
const CLOSED: &str = "tor1";

/// Slug, vCPUs, MiB, GB of disk, dollars per hour, whether it is still sold.
const SIZES: [(&str, u32, u32, u32, f64, bool); 6] = [
    ("s-1vcpu-1gb", 1, 1024, 25, 0.00893, true),
    ("s-1vcpu-2gb", 1, 2048, 50, 0.01786, true),
    ("s-2vcpu-4gb", 2, 4096, 80, 0.03571, true),
    ("s-4vcpu-8gb", 4, 8192, 160, 0.07143, true),
    ("c-2-retired", 2, 4096, 25, 0.00100, false),
    ("gpu-h100x1-80gb", 20, 245_760, 720, 3.39, true),
];

pub fn is_region(slug: &str) -> bool {
    REGIONS.contains(&slug)
}

/// Where there are machines of this size; the graphics processors are in one place only.
fn placed(slug: &str) -> Vec<&'static str> {
    if slug.starts_with("gpu") { vec!["nyc3"] } else { REGIONS.to_vec() }
}

/// Where a size is sold now; `None` when there is no such size.
pub fn sold_in(slug: &str) -> Option<Vec<&'static str>> {
    let (.., sold) = SIZES.iter().find(|(found, ..)| *found == slug)?;
    Some(placed(slug).into_iter().filter(|region| *sold && *region != CLOSED).collect())
}

pub fn sizes() -> Vec<Value> {
    SIZES.iter().map(|(slug, ..)| size(slug)).collect()
}

pub fn size(slug: &str) -> Value {
    let Some((_, vcpus, memory, disk, price, sold)) = SIZES.iter().find(|(found, ..)| *found == slug) else {
        return Value::Null;
    };
    let mut shown = json!({
        "slug": slug, "memory": memory, "vcpus": vcpus, "disk": disk, "transfer": 2.0, "price_monthly": price * 672.0,
        "price_hourly": price, "regions": placed(slug), "available": sold, "description": "Basic",
        "disk_info": [{"type": "local", "size": {"amount": disk, "unit": "gib"}}],
    });
    if slug.starts_with("gpu") {
        shown["gpu_info"] = json!({"count": 1, "model": "nvidia_h100", "vram": {"amount": 80, "unit": "gib"}});
    }
    shown
}

pub fn regions() -> Vec<Value> {
    REGIONS.iter().map(|slug| region(slug)).collect()
}

pub fn region(slug: &str) -> Value {
    let sold: Vec<&str> = SIZES.iter().map(|(size, ..)| *size).collect();
    json!({
        "name": format!("Region {slug}"), "slug": slug, "features": ["backups", "metadata", "storage"],
        "available": slug != CLOSED, "sizes": sold,
    })
}
