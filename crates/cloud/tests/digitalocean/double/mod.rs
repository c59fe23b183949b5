//! DigitalOcean in memory, on loopback: teams with tokens, droplets, snapshots, tags and firewalls; actions that progress
//! whenever somebody looks; pages, limits and refusals as the provider has them. Tests steer it.

pub mod catalog;
pub mod droplets;
pub mod firewalls;
pub mod images;
pub mod scopes;
pub mod tags;
pub mod world;

use axum::http::{Method, Uri};
use serde_json::{Value, json};

use self::scopes::Access;
use self::world::{LIMIT, Refused, Reply, Team, World, not_found, refuse, unprocessable};
use crate::double::{Answer, Asked, Limits, now_secs};

/// The token of the first team.
pub const TOKEN: &str = "token-of-the-first-team";
/// Another token of it, that may only read.
pub const READ_ONLY: &str = "token-that-may-only-read";
/// The token of another team.
pub const OTHER_TOKEN: &str = "token-of-another-team";

pub type Double = crate::double::Double<World>;

impl crate::double::World for World {
    fn answer(&mut self, asked: &Asked<'_>) -> Answer {
        let (reply, left) = self.reply(asked);
        let (status, body) = reply.unwrap_or_else(|Refused { status, id, message, attributes }| {
            let mut body = json!({"id": id, "message": message, "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9"});
            if !attributes.is_null() {
                body["error_attributes"] = attributes;
            }
            (status, body)
        });
        Answer { status, body, limits: Limits { most: LIMIT, left, reset_at: now_secs() + 60 } }
    }
}

impl World {
    /// The reply, and how many requests the team has left.
    fn reply(&mut self, asked: &Asked<'_>) -> (Reply, u32) {
        let Asked { token, method, uri, body } = *asked;
        let Some((team, access)) = self.tokens.get(token).cloned() else {
            return (refuse(401, "Unauthorized", "Unable to authenticate you"), LIMIT);
        };
        let left = &mut self.accounts[team].left;
        if *left == 0 {
            return (refuse(429, "too_many_requests", "API Rate limit exceeded."), 0);
        }
        *left -= 1;
        let left = *left;
        self.requests.push(format!("{method} {uri}"));
        if !allows(&access, method, uri, body) {
            return (refuse(403, "Forbidden", "You are not authorized to perform this operation"), left);
        }
        if let Some((status, message)) = self.refuse_next.pop_front() {
            return (refuse(status, "told_to_refuse", format!("{message}; your token is {token}")), left);
        }
        (self.route(team, method, uri, body), left)
    }

    fn route(&mut self, team: usize, method: &Method, uri: &Uri, body: &[u8]) -> Reply {
        // Clients may write the colon of a tag in either way.
        let decoded = uri.path().replace("%3A", ":");
        let path: Vec<&str> = decoded.trim_matches('/').split('/').collect();
        let Some(("v2", path)) = path.split_first().map(|(version, path)| (*version, path)) else {
            return not_found();
        };
        let query = Query { text: uri.query().unwrap_or_default(), path: uri.path(), host: &self.links_host };
        let body = match body {
            [] => json!({}),
            bytes => serde_json::from_slice(bytes).or_else(|_| refuse(400, "bad_request", "no JSON"))?,
        };
        let (knobs, team) = (&mut self.knobs, &mut self.accounts[team]);
        if method == Method::GET {
            // Time passes when somebody looks.
            team.tick(knobs);
        }
        match (method.as_str(), path) {
            ("GET", ["account"]) => Ok((200, Team::account(knobs))),
            ("GET", ["sizes"]) => query.page("sizes", catalog::sizes()),
            ("GET", ["regions"]) => query.page("regions", catalog::regions()),
            ("GET", ["actions"]) => query.page("actions", team.all_actions()?),
            ("GET", ["actions", id]) => Ok((200, json!({"action": team.action(number(id)?)?}))),
            ("GET", ["droplets"]) => query.page("droplets", team.droplets_json(knobs, &query)),
            ("POST", ["droplets"]) => team.create_droplet(knobs, &body),
            ("DELETE", ["droplets"]) => team.delete_tagged(&query.get("tag_name").unwrap_or_default()),
            ("GET", ["droplets", id]) => Ok((200, json!({"droplet": team.droplet(number(id)?)?.json(team, knobs)}))),
            ("DELETE", ["droplets", id]) => team.delete_droplet(knobs, number(id)?),
            ("GET", ["droplets", id, "actions"]) => query.page("actions", team.actions_of(number(id)?)?),
            ("POST", ["droplets", id, "actions"]) => team.act(knobs, number(id)?, &body),
            ("GET", ["images"]) => query.page("images", team.images_json(&query)),
            ("GET", ["images", id]) => Ok((200, json!({"image": team.image(number(id)?)?}))),
            ("GET", ["snapshots"]) => query.page("snapshots", team.snapshots_json(&query)),
            ("DELETE", ["images" | "snapshots", id]) => team.delete_snapshot(id),
            ("GET", ["tags"]) => query.page("tags", team.tags_json()),
            ("POST", ["tags"]) => team.create_tag(&body),
            ("GET", ["tags", name]) => team.tag(name),
            ("DELETE", ["tags", name]) => team.delete_tag(name),
            ("POST", ["tags", name, "resources"]) => team.tag_resources(name, &body),
            ("POST", ["firewalls"]) => team.create_firewall(knobs, &body),
            ("GET", ["firewalls", id]) => Ok((200, json!({"firewall": team.thing("firewalls", id)?}))),
            ("PUT", ["firewalls", id]) => team.update_firewall(id, &body),
            ("GET", ["account", "keys"]) => query.page("ssh_keys", team.things("keys")),
            ("DELETE", ["account", "keys", id]) => team.delete_thing("keys", id),
            ("GET", [kind @ ("firewalls" | "volumes" | "reserved_ips")]) => query.page(kind, team.things(kind)),
            ("DELETE", [kind @ ("firewalls" | "volumes" | "reserved_ips"), id]) => team.delete_thing(kind, id),
            _ => not_found(),
        }
    }
}

/// Looked at before anything else of the request.
fn allows(access: &Access, method: &Method, uri: &Uri, body: &[u8]) -> bool {
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').skip(1).collect();
    access.allows(method.as_str(), &path, &serde_json::from_slice(body).unwrap_or_default())
}

fn number(text: &str) -> Result<u64, Refused> {
    text.parse().or_else(|_| not_found())
}

/// A query string and what it belongs to.
pub struct Query<'q> {
    text: &'q str,
    path: &'q str,
    host: &'q str,
}

impl Query<'_> {
    pub fn get(&self, name: &str) -> Option<String> {
        let mut pairs = self.text.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value.replace("%3A", ":"))
    }

    /// One page of a list, as every list is given: with the address of the next, host and all.
    fn page(&self, key: &str, items: Vec<Value>) -> Reply {
        let number = |name: &str, default: usize| {
            let text = self.get(name).unwrap_or_else(|| default.to_string());
            text.parse::<usize>().ok().filter(|number| *number > 0)
        };
        let (Some(page), Some(per_page)) = (number("page", 1), number("per_page", 20).filter(|size| *size <= 200))
        else {
            return unprocessable("page or per_page is out of range");
        };
        let (total, last) = (items.len(), items.len().div_ceil(per_page).max(1));
        let shown: Vec<Value> = items.into_iter().skip((page - 1) * per_page).take(per_page).collect();
        let others = self.text.split('&').filter(|pair| !pair.starts_with("page=") && !pair.is_empty());
        let others: String = others.map(|pair| format!("&{pair}")).collect();
        let address = |page: usize| format!("{}{}?page={page}{others}", self.host, self.path);
        let mut pages = json!({});
        if page > 1 {
            pages["first"] = address(1).into();
            pages["prev"] = address(page - 1).into();
        }
        if page < last {
            pages["next"] = address(page + 1).into();
            pages["last"] = address(last).into();
        }
        let links = if last > 1 { json!({"pages": pages}) } else { json!({}) };
        Ok((200, json!({key: shown, "links": links, "meta": {"total": total}})))
    }
}
