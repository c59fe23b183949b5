//! `/registry/token`: GET with HTTP Basic, as every client knows it, and POST with a form, as newer ones try
//! first. Both answer with the same document.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{SecondsFormat, TimeDelta};
use serde::Serialize;

use super::jwt::{self, Claims};
use super::scope::grants;
use crate::App;
use crate::error::{ApiError, Result};

/// What a registry client reads.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Token {
    /// The JWT.
    pub token: String,
    /// The same again: OAuth clients read this name.
    pub access_token: String,
    /// Seconds until it ends.
    pub expires_in: i64,
    /// When it was issued.
    pub issued_at: String,
}

/// The parameters of both forms, by name; `scope` may come several times.
type Parameters = Vec<(String, String)>;

/// `GET /registry/token`
pub async fn get(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Result<axum::Json<Token>> {
    let given = parameters(&uri)?;
    let password = basic_password(&headers).ok_or(ApiError::RegistryUnauthorized)?;
    issue(&app, &given, &password).map(axum::Json)
}

/// `POST /registry/token`
pub async fn post(State(app): State<App>, body: Bytes) -> Result<axum::Json<Token>> {
    // A form in a body is written as a query is.
    let form = std::str::from_utf8(&body).ok().and_then(|form| format!("/?{form}").parse::<Uri>().ok());
    let given = parameters(&form.ok_or_else(|| invalid("the body is not a form"))?)?;
    if value(&given, "grant_type") != Some("password") {
        return Err(invalid("`grant_type` must be `password`"));
    }
    issue(&app, &given, value(&given, "password").unwrap_or_default()).map(axum::Json)
}

fn issue(app: &App, given: &Parameters, password: &str) -> Result<Token> {
    let settings = &app.registry.config;
    if value(given, "service").is_some_and(|service| service != settings.service) {
        return Err(invalid("`service` names another registry"));
    }
    let now = app.clock.now();
    let credential = app.registry.minter.verify(password, now).map_err(|refused| {
        tracing::info!(reason = %refused, "registry credential refused: {refused}");
        ApiError::RegistryUnauthorized
    })?;
    let asked: Vec<String> = given.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.clone()).collect();
    let access = grants(&asked, &credential);
    // A token never outlives the credential that it was made for.
    let until = credential.expires_at.min(now + TimeDelta::seconds(i64::from(settings.token_ttl_secs)));
    let claims = Claims::new(&settings.issuer, &credential.holder, &settings.service, now, until, &access);
    let token = jwt::sign(&app.registry.key, &claims)
        .map_err(|source| ApiError::Internal { doing: "sign a registry token", source: source.into() })?;
    Ok(Token {
        access_token: token.clone(),
        token,
        expires_in: (until - now).num_seconds(),
        issued_at: now.to_rfc3339_opts(SecondsFormat::Secs, true),
    })
}

fn parameters(uri: &Uri) -> Result<Parameters> {
    let given = axum::extract::Query::<Parameters>::try_from_uri(uri);
    given.map(|given| given.0).map_err(|_| invalid("the parameters are not written as a form"))
}

fn value<'a>(given: &'a Parameters, name: &str) -> Option<&'a str> {
    given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

/// The password of HTTP Basic; the user name is only for people.
fn basic_password(headers: &HeaderMap) -> Option<String> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

fn invalid(detail: &str) -> ApiError {
    ApiError::Invalid { code: "invalid_token_request", detail: detail.to_owned() }
}
