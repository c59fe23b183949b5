//! Who we are to GitHub.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use stagely_domain::secret::Secret;
use tokio::sync::Mutex;

use crate::types::Repo;
use crate::{ErrorKind, ForgeError, Result};

/// A credential.
pub enum Auth {
    /// Tokens of a user or a bot.
    Token {
        /// Reads pull requests, writes comments, checks and deployments. No machine gets it.
        token: Secret,
        /// What every machine clones with, and whoever opened a pull request is root on one: it reads and no more.
        clone_token: Secret,
    },
    /// A GitHub App: each call and each clone gets a token for one repository.
    App {
        /// The App's id.
        app_id: String,
        /// Its RSA key in PEM.
        private_key: Secret,
    },
}

/// Tokens are renewed this long before they end.
const MARGIN: TimeDelta = TimeDelta::minutes(5);

/// A token and when it ends.
pub(super) type Token = (Secret, Option<DateTime<Utc>>);

/// The credential, ready to be used.
pub(super) enum Signer {
    Token { token: Secret, clone_token: Secret },
    App { app_id: String, key: EncodingKey, tokens: Mutex<HashMap<(Repo, Use), Token>> },
}

/// What a token is for: machines get one that can only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Api,
    Clone,
}

#[derive(Serialize)]
struct Claims<'c> {
    iat: i64,
    exp: i64,
    iss: &'c str,
}

impl Signer {
    pub(super) fn new(auth: Auth) -> Result<Self> {
        match auth {
            Auth::Token { token, clone_token } => Ok(Self::Token { token, clone_token }),
            Auth::App { app_id, private_key } => {
                let key = EncodingKey::from_rsa_pem(private_key.reveal().as_bytes());
                let key = key.map_err(|_| {
                    ForgeError::new(ErrorKind::Auth, "read the App's key", "it is not an RSA key in PEM")
                })?;
                Ok(Self::App { app_id, key, tokens: Mutex::default() })
            }
        }
    }

    /// A token from the cache, if it lasts a while yet.
    pub(super) async fn cached(&self, repo: &Repo, purpose: Use, now: DateTime<Utc>) -> Option<Token> {
        match self {
            Self::Token { token, clone_token } => {
                let token = match purpose {
                    Use::Api => token,
                    Use::Clone => clone_token,
                };
                Some((token.clone(), None))
            }
            Self::App { tokens, .. } => {
                let tokens = tokens.lock().await;
                let (token, until) = tokens.get(&(repo.clone(), purpose))?;
                until.is_some_and(|until| until - MARGIN > now).then(|| (token.clone(), *until))
            }
        }
    }

    /// Keeps a token, and drops those that have ended, so that the cache does not grow with repositories of the past.
    pub(super) async fn remember(&self, repo: &Repo, purpose: Use, token: &Token, now: DateTime<Utc>) {
        if let Self::App { tokens, .. } = self {
            let mut tokens = tokens.lock().await;
            tokens.retain(|_, (_, until)| until.is_some_and(|until| until > now));
            tokens.insert((repo.clone(), purpose), token.clone());
        }
    }

    /// Drops a token that was refused.
    pub(super) async fn forget(&self, repo: &Repo, purpose: Use) {
        if let Self::App { tokens, .. } = self {
            tokens.lock().await.remove(&(repo.clone(), purpose));
        }
    }

    /// The App's id, if we are one.
    pub(super) fn app_id(&self) -> Option<&str> {
        match self {
            Self::Token { .. } => None,
            Self::App { app_id, .. } => Some(app_id),
        }
    }

    /// The App's own token: RS256, begun a minute ago against clock skew, good for nine minutes (GitHub's limit is ten).
    pub(super) fn app_token(&self, now: DateTime<Utc>) -> Result<Secret> {
        let doing = "sign as the App";
        let Self::App { app_id, key, .. } = self else {
            return Err(ForgeError::new(ErrorKind::Invalid, doing, "this needs a GitHub App, and we have a token"));
        };
        let claims = Claims { iat: now.timestamp() - 60, exp: now.timestamp() + 540, iss: app_id };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, key)
            .map(Secret::new)
            .map_err(|_| ForgeError::new(ErrorKind::Auth, doing, "the key does not sign"))
    }
}
