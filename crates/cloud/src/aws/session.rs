//! Who asks: the keys of the account, or those that STS gives for a role until they run out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::clock::Clock;

use crate::aws::actions::ASSUME_ROLE;
use crate::aws::{Config, Role, refusal};
use crate::{CloudError, ErrorKind, Result};

const DOING: &str = "take on the account's role";
/// The name under which the account's owner sees what we did.
const NAME: &str = "stagely";
/// Taken anew that long before its end, so that no request is late.
const MARGIN: TimeDelta = TimeDelta::minutes(5);

pub(super) struct Session {
    keys: Credentials,
    role: Option<Role>,
    sts: aws_sdk_sts::Client,
    clock: Arc<dyn Clock>,
    /// Whoever takes the role on holds this, and the others wait for the outcome.
    taking: tokio::sync::Mutex<()>,
    taken: Mutex<Option<(Credentials, DateTime<Utc>)>>,
    forgotten: AtomicU64,
}

impl Session {
    pub(super) fn new(config: &Config, sts: aws_sdk_sts::config::Builder, clock: Arc<dyn Clock>) -> Self {
        let keys = &config.keys;
        let token = keys.session_token.as_ref().map(|token| token.reveal().to_owned());
        let keys = Credentials::new(&keys.access_key_id, keys.secret_access_key.reveal(), token, None, "account");
        let sts = aws_sdk_sts::Client::from_conf(sts.credentials_provider(keys.clone()).build());
        Self {
            keys,
            role: config.role.clone(),
            sts,
            clock,
            taking: tokio::sync::Mutex::default(),
            taken: Mutex::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// The credentials that count now.
    pub(super) async fn credentials(&self) -> Result<Credentials> {
        let Some(role) = &self.role else { return Ok(self.keys.clone()) };
        let _one_at_a_time = self.taking.lock().await;
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        let (credentials, end) = self.assume(role).await?;
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((credentials.clone(), end));
        Ok(credentials)
    }

    /// Takes the role on anew next time: its keys were refused.
    pub(super) fn forget(&self) {
        if self.taken.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many times the keys of the role were refused.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    fn fresh(&self) -> Option<Credentials> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.as_ref().filter(|(_, end)| *end - MARGIN > self.clock.now()).map(|(credentials, _)| credentials.clone())
    }

    async fn assume(&self, role: &Role) -> Result<(Credentials, DateTime<Utc>)> {
        let answer = self
            .sts
            .assume_role()
            .role_arn(&role.arn)
            .role_session_name(NAME)
            .set_external_id(role.external_id.as_ref().map(|id| id.reveal().to_owned()))
            .send()
            .await
            .map_err(|error| refusal::read(DOING, &ASSUME_ROLE, &error))?;
        let given = answer.credentials.ok_or_else(|| CloudError::new(ErrorKind::Protocol, DOING, "no keys came"))?;
        let end = DateTime::from_timestamp(given.expiration.secs(), 0)
            .ok_or_else(|| CloudError::new(ErrorKind::Protocol, DOING, "the keys have no end"))?;
        let token = Some(given.session_token);
        let expiry = Some(SystemTime::from(end));
        Ok((Credentials::new(given.access_key_id, given.secret_access_key, token, expiry, "role"), end))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("role", &self.role).finish_non_exhaustive()
    }
}

impl ProvideCredentials for Session {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.credentials().await.map_err(CredentialsError::provider_error) })
    }
}
