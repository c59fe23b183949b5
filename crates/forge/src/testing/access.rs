//! Who may do what: the one all-powerful token, the one that only reads, the App, and the tokens of its installations.

use axum::http::HeaderMap;
use base64::Engine;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rest::{Answer, refused};
use super::state::Grant;
use super::{APP_ID, APP_PUBLIC_KEY, CLONE_TOKEN, GitHost, TOKEN};

/// Who asks.
pub(super) enum Caller {
    /// Somebody with [`TOKEN`].
    Token,
    /// Somebody with [`CLONE_TOKEN`].
    Reader,
    /// The App itself.
    App,
    /// The App with one installation's token.
    Installation(Grant),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
    exp: i64,
}

/// Who a request is from; `None` for credentials that do not count.
pub(super) fn caller(host: &GitHost, headers: &HeaderMap) -> Option<Caller> {
    let text = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
    if text == TOKEN {
        return Some(Caller::Token);
    }
    if text == CLONE_TOKEN {
        return Some(Caller::Reader);
    }
    if is_app(host, text) {
        return Some(Caller::App);
    }
    let now = host.0.clock.now();
    host.state().grants.get(text).filter(|grant| grant.until > now).cloned().map(Caller::Installation)
}

/// GitHub's rules for an App's token: RS256 by its key, issued by it, not from the future, ten minutes at most.
fn is_app(host: &GitHost, token: &str) -> bool {
    let mut rules = Validation::new(Algorithm::RS256);
    // The host has a clock of its own, and compares by it below.
    rules.validate_exp = false;
    let key = DecodingKey::from_rsa_pem(APP_PUBLIC_KEY.as_bytes()).expect("the App's public key");
    let now = host.0.clock.now().timestamp();
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &rules).map(|token| token.claims);
    claims.is_ok_and(|claims| claims.iss == APP_ID && claims.iat <= now && claims.exp > now && claims.exp <= now + 600)
}

/// The refusal, if `caller` may not do this.
pub(super) fn refusal(caller: &Caller, method: &str, segments: &[&str]) -> Option<Answer> {
    let for_app = matches!(segments, ["app", ..] | ["repos", _, _, "installation"]);
    match caller {
        Caller::App if for_app => None,
        Caller::App => Some(refused(403, "Resource not accessible by integration")),
        _ if for_app => Some(refused(401, "A JSON web token could not be decoded")),
        Caller::Token => None,
        Caller::Reader if method == "GET" => None,
        Caller::Reader => Some(refused(403, "Resource not accessible by personal access token")),
        Caller::Installation(grant) => match segments {
            ["repos", owner, name, ..] if !grant.repos.contains(&format!("{owner}/{name}")) => {
                Some(refused(404, "Not Found"))
            }
            _ if method != "GET" && !grant.writes => Some(refused(403, "Resource not accessible by integration")),
            _ => None,
        },
    }
}

/// A token of an installation for the repositories that are named, for an hour.
pub(super) fn issue(host: &GitHost, installation: &str, body: &Value) -> Answer {
    let until = host.0.clock.now() + chrono::TimeDelta::hours(1);
    let permissions = body.get("permissions").cloned();
    let mut state = host.state();
    let owner =
        state.installations.iter().find(|(_, id)| id.to_string() == installation).map(|(owner, _)| owner.clone());
    let Some(owner) = owner else { return refused(404, "Not Found") };
    let names: Vec<&str> = body["repositories"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let repos: Vec<String> = names.iter().map(|name| format!("{owner}/{name}")).collect();
    if repos.is_empty() || repos.iter().any(|repo| !state.repos.contains_key(repo)) {
        return refused(422, "There is at least one repository that does not exist or is not accessible");
    }
    let writes = permissions.as_ref().is_none_or(|asked| asked.to_string().contains("write"));
    let token = format!("ghs_{}", uuid::Uuid::new_v4().simple());
    state.grants.insert(token.clone(), Grant { repos, writes, until });
    drop(state);
    let permissions =
        permissions.unwrap_or_else(|| json!({"contents": "read", "checks": "write", "deployments": "write"}));
    Answer::new(201, host.answers().access_token(&token, &until.to_rfc3339(), &permissions))
}

/// Whether git may read `repo` with these headers.
pub(super) fn may_clone(host: &GitHost, authorization: &str, repo: &str) -> bool {
    let given = authorization
        .strip_prefix("Basic ")
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let given = given.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let Some(token) = given.strip_prefix("x-access-token:") else { return false };
    let now = host.0.clock.now();
    let granted = |grant: &Grant| grant.until > now && grant.repos.iter().any(|known| known == repo);
    token == TOKEN || token == CLONE_TOKEN || host.state().grants.get(token).is_some_and(granted)
}
