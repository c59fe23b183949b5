//! An account by its credentials, which come from the environment.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use stagely_cloud::Cloud;
use stagely_cloud::account::{self, Apis};
use stagely_domain::account::{Credentials, Settings};
use stagely_domain::clock::SystemClock;
use stagely_domain::machine::Provider;
use stagely_domain::secret::Secret;

use super::told;
use crate::ClientError;

/// Which cloud.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Aws,
    Digitalocean,
    Hetzner,
}

/// Which account.
#[derive(Args)]
pub(super) struct Account {
    /// Of which cloud; its credentials are taken from HCLOUD_TOKEN, DIGITALOCEAN_TOKEN, or AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, where they run out; with AWS_ROLE_ARN and AWS_EXTERNAL_ID, that role
    /// is taken on).
    #[arg(long = "account", value_name = "CLOUD")]
    pub(super) kind: Kind,
    /// AWS: the region, or all regions of the account, with commas between them.
    #[arg(long = "region", env = "AWS_REGION", value_delimiter = ',')]
    regions: Vec<String>,
    #[arg(long, env = "HCLOUD_TOKEN", hide = true, hide_env_values = true)]
    hcloud_token: Option<String>,
    #[arg(long, env = "DIGITALOCEAN_TOKEN", hide = true, hide_env_values = true)]
    digitalocean_token: Option<String>,
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide = true, hide_env_values = true)]
    access_key_id: Option<String>,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide = true, hide_env_values = true)]
    secret_access_key: Option<String>,
    #[arg(long, env = "AWS_SESSION_TOKEN", hide = true, hide_env_values = true)]
    session_token: Option<String>,
    #[arg(long, env = "AWS_ROLE_ARN", hide = true)]
    role_arn: Option<String>,
    #[arg(long, env = "AWS_EXTERNAL_ID", hide = true, hide_env_values = true)]
    external_id: Option<String>,
    #[arg(long, env = "AWS_ENDPOINT_URL", hide = true)]
    aws_api: Option<String>,
    #[arg(long, env = "DIGITALOCEAN_API_URL", hide = true)]
    digitalocean_api: Option<String>,
    #[arg(long, env = "HCLOUD_ENDPOINT", hide = true)]
    hetzner_api: Option<String>,
}

impl Kind {
    pub(super) const fn provider(self) -> Provider {
        match self {
            Self::Aws => Provider::Aws,
            Self::Digitalocean => Provider::Digitalocean,
            Self::Hetzner => Provider::Hetzner,
        }
    }
}

impl Account {
    /// A client of it, with these settings beside its region.
    pub(super) fn open(&self, settings: Settings) -> Result<Arc<dyn Cloud>, ClientError> {
        let given = |name: &str, value: &Option<String>| {
            let value = value.as_ref().filter(|value| !value.is_empty())?;
            Some((name.to_owned(), Secret::new(value)))
        };
        let (kind, variables, given) = match self.kind {
            Kind::Aws => {
                let keys = [
                    given("access_key_id", &self.access_key_id),
                    given("secret_access_key", &self.secret_access_key),
                    given("session_token", &self.session_token),
                    given("role_arn", &self.role_arn),
                    given("external_id", &self.external_id),
                ];
                (Provider::Aws, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", Vec::from(keys))
            }
            Kind::Digitalocean => {
                (Provider::Digitalocean, "DIGITALOCEAN_TOKEN", vec![given("token", &self.digitalocean_token)])
            }
            Kind::Hetzner => (Provider::Hetzner, "HCLOUD_TOKEN", vec![given("token", &self.hcloud_token)]),
        };
        if kind == Provider::Aws && self.regions.is_empty() {
            return Err(ClientError::Setup("say which region: --region, or AWS_REGION".to_owned()));
        }
        let missing = |what| ClientError::Setup(format!("{what}: set {variables}"));
        let credentials = Credentials::temporary(kind, given.into_iter().flatten().collect()).map_err(missing)?;
        let settings = Settings { regions: self.regions.clone(), ..settings };
        let apis = Apis {
            aws: self.aws_api.clone(),
            digitalocean: self.digitalocean_api.clone(),
            hetzner: self.hetzner_api.clone(),
        };
        account::open(kind, &settings, &credentials, &apis, Arc::new(SystemClock)).map_err(told)
    }
}
