//! Hetzner Cloud in memory, on loopback: projects with tokens, servers, snapshots, firewalls and addresses; actions that
//! progress whenever somebody looks; pages, limits and refusals as the provider has them. Tests steer it.

pub mod catalog;
pub mod server;
pub mod world;

use axum::http::{Method, Uri};
use serde_json::{Value, json};

use self::server::Server;
use self::world::{Knobs, LIMIT, Project, Refused, Reply, World, refuse};
use crate::double::{Answer, Asked, Limits, now_secs};

/// The token of the first project.
pub const TOKEN: &str = "token-of-the-first-project";
/// Another token of it, that may only read.
pub const READ_ONLY: &str = "token-that-may-only-read";
/// The token of another project.
pub const OTHER_TOKEN: &str = "token-of-another-project";

pub type Double = crate::double::Double<World>;

impl crate::double::World for World {
    fn answer(&mut self, asked: &Asked<'_>) -> Answer {
        let (reply, left) = self.reply(asked);
        let (status, body) = reply.unwrap_or_else(|Refused { status, code, message }| {
            (status, json!({"error": {"code": code, "message": message, "details": null}}))
        });
        let limits = Limits { most: LIMIT, left, reset_at: now_secs() + i64::from(LIMIT - left) };
        Answer { status, body, limits }
    }
}

impl World {
    /// The reply, and how many requests the project has left.
    fn reply(&mut self, asked: &Asked<'_>) -> (Reply, u32) {
        let Asked { token, method, uri, body } = *asked;
        let Some((project, read_only)) = self.tokens.get(token).copied() else {
            return (refuse(401, "unauthorized", "unable to authenticate"), LIMIT);
        };
        let left = &mut self.accounts[project].left;
        if *left == 0 {
            return (refuse(429, "rate_limit_exceeded", "limit of 3600 requests per hour reached"), 0);
        }
        *left -= 1;
        let left = *left;
        self.requests.push(format!("{method} {uri}"));
        if read_only && method != Method::GET {
            return (refuse(403, "token_readonly", "token is only allowed to perform GET requests"), left);
        }
        if let Some((status, code)) = self.refuse_next.pop_front() {
            return (refuse(status, code, format!("told to refuse; your token is {token}")), left);
        }
        (self.route(project, method, uri, body), left)
    }

    fn route(&mut self, project: usize, method: &Method, uri: &Uri, body: &[u8]) -> Result<(u16, Value), Refused> {
        let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let Some(("v1", path)) = path.split_first().map(|(version, path)| (*version, path)) else {
            return refuse(404, "not_found", "no such version");
        };
        let query = Query(uri.query().unwrap_or_default());
        let body = match body {
            [] => json!({}),
            bytes => serde_json::from_slice(bytes).or_else(|_| refuse(400, "json_error", "no JSON"))?,
        };
        let knobs = &mut self.knobs;
        let project = &mut self.accounts[project];
        if method == Method::GET {
            // Time passes when somebody looks.
            project.tick(knobs);
        }
        match (method.as_str(), path) {
            ("GET", ["server_types"]) => query.page("server_types", catalog::server_types(&query)),
            ("GET", ["locations"]) => query.page("locations", catalog::locations()),
            ("GET", ["pricing"]) => Ok((200, json!({"pricing": catalog::pricing()}))),
            ("GET", ["actions"]) => project.some_actions(&query),
            ("GET", ["actions", id]) => Ok((200, json!({"action": project.action(number(id)?)?}))),
            ("GET", ["servers"]) => query.page_of_servers(project, knobs),
            ("POST", ["servers"]) => project.create_server(knobs, &body),
            ("GET", ["servers", id]) => Ok((200, json!({"server": project.server(number(id)?)?.json(knobs)}))),
            ("DELETE", ["servers", id]) => project.delete_server(knobs, number(id)?),
            ("GET", ["servers", id, "actions"]) => query.page("actions", project.actions_of(number(id)?)?),
            ("PUT", ["servers", id]) => project.update_server(knobs, number(id)?, &body),
            ("PUT", ["images", id]) => project.update_image(number(id)?, &body),
            ("POST", ["servers", id, "actions", what]) => project.act(knobs, number(id)?, what, &body),
            ("GET", ["images"]) => query.page("images", project.images_json()),
            ("POST", ["firewalls"]) => project.create_firewall(knobs, &body),
            ("POST", ["firewalls", id, "actions", "set_rules"]) => project.set_rules(number(id)?, &body),
            ("GET", [kind]) => query.page(kind, project.things(kind)?),
            ("GET", [kind, id]) => project.thing(kind, number(id)?),
            ("DELETE", [kind, id]) => project.delete_thing(kind, number(id)?),
            _ => refuse(404, "not_found", "no such route"),
        }
    }
}

fn number(text: &str) -> Result<u64, Refused> {
    text.parse().or_else(|_| refuse(422, "invalid_input", "an id is a number"))
}

/// What a list is asked for: labels, and for fields the values that they may have.
struct Filter {
    selector: Option<String>,
    fields: [(&'static str, Vec<String>); 4],
}

impl Filter {
    fn fits<'i>(&self, labels: &Value, field: impl Fn(&str) -> Option<&'i str>) -> bool {
        let wanted = self.fields.iter().filter(|(_, values)| !values.is_empty());
        self.selector.as_ref().is_none_or(|selector| selects(selector, labels))
            && wanted.into_iter().all(|(name, values)| values.iter().any(|value| field(name) == Some(value)))
    }
}

/// A query string.
pub struct Query<'q>(&'q str);

impl Query<'_> {
    pub fn all(&self, name: &str) -> Vec<String> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(found, _)| *found == name).map(|(_, value)| decode(value)).collect()
    }

    pub fn get(&self, name: &str) -> Option<String> {
        self.all(name).pop()
    }

    /// One page of what fits the filters, as every list is given.
    fn page(&self, key: &str, mut items: Vec<Value>) -> Result<(u16, Value), Refused> {
        let filter = self.filter();
        items.retain(|item| filter.fits(&item["labels"], |name| item[name].as_str()));
        self.cut(key, &items, Value::clone)
    }

    /// The same for servers, of which there may be very many: only those of the page are spelled out.
    fn page_of_servers(&self, project: &Project, knobs: &Knobs) -> Result<(u16, Value), Refused> {
        let filter = self.filter();
        let fits = |server: &&Server| {
            filter.fits(&server.labels, |name| match name {
                "name" => Some(&server.name),
                "status" => Some(server.status),
                _ => None,
            })
        };
        let found: Vec<&Server> = project.machines.values().filter(fits).collect();
        self.cut("servers", &found, |server| server.json(knobs))
    }

    fn filter(&self) -> Filter {
        let fields = ["name", "type", "status", "architecture"].map(|name| (name, self.all(name)));
        Filter { selector: self.get("label_selector"), fields }
    }

    fn cut<T>(&self, key: &str, items: &[T], show: impl Fn(&T) -> Value) -> Result<(u16, Value), Refused> {
        let number = |name: &str, default: usize| {
            let text = self.get(name).unwrap_or_else(|| default.to_string());
            text.parse::<usize>().ok().filter(|number| *number > 0)
        };
        let (Some(page), Some(per_page)) = (number("page", 1), number("per_page", 25).filter(|size| *size <= 50))
        else {
            return refuse(422, "invalid_input", "page or per_page is out of range");
        };
        let (total, last) = (items.len(), items.len().div_ceil(per_page).max(1));
        let shown: Vec<Value> = items.iter().skip((page - 1) * per_page).take(per_page).map(show).collect();
        let pagination = json!({
            "page": page, "per_page": per_page, "previous_page": (page > 1).then(|| page - 1),
            "next_page": (page < last).then(|| page + 1), "last_page": last, "total_entries": total,
        });
        Ok((200, json!({key: shown, "meta": {"pagination": pagination}})))
    }
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes().iter());
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).copied().collect();
                bytes.extend(hex::decode(hex).unwrap());
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// `a=b`, `a==b`, `a`, `!a`, and any of them joined by commas.
fn selects(selector: &str, labels: &Value) -> bool {
    selector.split(',').all(|part| match part.replace("==", "=").split_once('=') {
        Some((name, value)) => labels[name.trim()] == value.trim(),
        None => match part.strip_prefix('!') {
            Some(name) => labels.get(name).is_none(),
            None => labels.get(part).is_some(),
        },
    })
}

impl Project {
    fn some_actions(&self, query: &Query<'_>) -> Result<(u16, Value), Refused> {
        let ids = query.all("id");
        if ids.is_empty() {
            return refuse(422, "invalid_input", "id is required");
        }
        let found: Result<Vec<Value>, Refused> = ids.iter().map(|id| self.action(number(id)?)).collect();
        Ok((200, json!({"actions": found?})))
    }
}
