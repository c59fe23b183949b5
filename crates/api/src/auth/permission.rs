//! Extractors that prove a check: a handler that holds a [`Member`] was called with a member's token or a
//! better one. The [`Scope`] inside is minted by the store from the token's row and by nobody else.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use stagely_domain::error_chain::chain;
use stagely_domain::id::TeamId;
use stagely_domain::role::Role;
use stagely_store::{AuditEntry, Authorized, Scope};

use crate::App;
use crate::error::{ApiError, Result};
use crate::tokens;

/// The asker.
pub struct Caller(Authorized);

/// May see.
pub struct Viewer(pub Caller);

/// May run, stop and keep environments.
pub struct Member(pub Caller);

/// May change projects, accounts and secrets.
pub struct Admin(pub Caller);

impl Caller {
    /// Whose rows may be touched.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// The team acted for.
    #[must_use]
    pub const fn team(&self) -> TeamId {
        self.0.team
    }

    /// The token's role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.0.role
    }

    /// The token's id, as the audit log names the actor.
    #[must_use]
    pub fn actor(&self) -> String {
        self.0.token.to_string()
    }

    /// An audit line about something this caller does.
    #[must_use]
    pub fn audit(
        &self,
        action: &'static str,
        target_kind: &'static str,
        target: impl ToString,
        detail: serde_json::Value,
    ) -> AuditEntry {
        AuditEntry {
            team: Some(self.team()),
            actor_kind: "token",
            actor: self.actor(),
            action,
            target_kind,
            target: target.to_string(),
            detail,
        }
    }
}

/// Looks the request's token up and checks its role.
async fn authorize(parts: &Parts, app: &App, needed: Role) -> Result<Caller> {
    let token = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && tokens::looks_right(token))
        .map(|(_, token)| token)
        .ok_or(ApiError::Unauthorized)?;
    let authorized = app.store.authorize_token(&tokens::hash(token)).await?.ok_or(ApiError::Unauthorized)?;
    if authorized.touch_due
        && let Err(error) = app.store.touch_token(authorized.token).await
    {
        tracing::warn!(error = chain(&error), "the use of a token could not be noted");
    }
    if authorized.role.allows(needed) { Ok(Caller(authorized)) } else { Err(ApiError::Forbidden(needed)) }
}

impl FromRequestParts<App> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        authorize(parts, app, Role::Viewer).await.map(Self)
    }
}

impl FromRequestParts<App> for Member {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        authorize(parts, app, Role::Member).await.map(Self)
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        authorize(parts, app, Role::Admin).await.map(Self)
    }
}
