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
    /// A token of a user or a bot. Machines get it to clone with, so it should read and no more.
    Token(Secret),
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
    Token(Secret),
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
            Auth::Token(token) => Ok(Self::Token(token)),
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
            Self::Token(token) => Some((token.clone(), None)),
            Self::App { tokens, .. } => {
                let tokens = tokens.lock().await;
                let (token, until) = tokens.get(&(repo.clone(), purpose))?;
                until.is_some_and(|until| until - MARGIN > now).then(|| (token.clone(), *until))
            }
        }
    }

    pub(super) async fn remember(&self, repo: &Repo, purpose: Use, token: &Token) {
        if let Self::App { tokens, .. } = self {
            tokens.lock().await.insert((repo.clone(), purpose), token.clone());
        }
    }

    /// The App's own token: RS256, begun a minute ago against clock skew, good for nine minutes (GitHub's limit is ten).
    pub(super) fn app_token(&self, now: DateTime<Utc>) -> Result<Secret> {
        let doing = "sign as the App";
        let Self::App { app_id, key, .. } = self else {
            return Err(ForgeError::new(ErrorKind::Auth, doing, "there is no App"));
        };
        let claims = Claims { iat: now.timestamp() - 60, exp: now.timestamp() + 540, iss: app_id };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, key)
            .map(Secret::new)
            .map_err(|_| ForgeError::new(ErrorKind::Auth, doing, "the key does not sign"))
    }
}
