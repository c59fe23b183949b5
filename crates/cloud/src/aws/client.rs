//! The SDK's clients: one HTTP client on the workspace's TLS, no retries, deadlines, and the allowance before each call.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{BehaviorVersion, IdentityCache, Region, SharedHttpClient, StalledStreamProtectionConfig};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_async::future::pagination_stream::PaginationStream;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use serde_json::Value;
use stagely_domain::clock::Clock;

use crate::aws::actions::Action;
use crate::aws::budget::{Budget, PAUSE};
use crate::aws::parameters::Parameters;
use crate::aws::prices::PriceList;
use crate::aws::refusal::{self, Refused};
use crate::aws::session::Session;
use crate::aws::{Config, DISK_GIB};
use crate::{CloudError, ErrorKind, Result};

/// More than an account can fill.
const MAX_PAGES: usize = 100;

pub(super) struct Client {
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) sts: aws_sdk_sts::Client,
    pub(super) parameters: Parameters,
    price_list: Option<PriceList>,
    session: Arc<Session>,
    budget: Budget,
}

impl Client {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        if config.disk_gib < DISK_GIB {
            return Err(invalid(&format!("a machine's disk has at least {DISK_GIB} GiB")));
        }
        if let Some(endpoint) = &config.endpoint {
            check_endpoint(endpoint)?;
        }
        let timeouts = TimeoutConfig::builder()
            // Well before the other, so that it is known that nothing was sent.
            .connect_timeout((config.timing.request / 2).min(Duration::from_secs(5)))
            .operation_timeout(config.timing.request)
            .build();
        let http: SharedHttpClient =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        // STS is asked with the keys themselves, and says what the role's are.
        let mut sts = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .http_client(http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache());
        sts.set_endpoint_url(config.endpoint.clone());
        let session = Arc::new(Session::new(config, sts.clone(), Arc::clone(&clock)));
        let asker: Arc<dyn ProvideCredentials> = session.clone();
        let mut ec2 = aws_sdk_ec2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(Arc::clone(&asker));
        ec2.set_endpoint_url(config.endpoint.clone());
        Ok(Self {
            ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
            sts: aws_sdk_sts::Client::from_conf(sts.credentials_provider(asker).build()),
            parameters: Parameters::new(config, Arc::clone(&clock))?,
            price_list: PriceList::new(config, clock)?,
            session,
            budget: Budget::new(config.limits),
        })
    }

    /// One request, when the account has one left.
    pub(super) async fn send<T, E>(
        &self,
        doing: &'static str,
        action: &Action,
        request: impl Future<Output = std::result::Result<T, SdkError<E, HttpResponse>>>,
    ) -> std::result::Result<T, Refused>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.turn(doing, action).await.map_err(|error| Refused { error, code: None })?;
        request.await.map_err(|error| {
            let Refused { error, code } = refusal::read(doing, action, &error);
            Refused { error: self.heed(action, error), code }
        })
    }

    /// Every page of a list. The SDK would end one that turns in a circle as if it were whole, so it must not watch for
    /// that: `stop_on_duplicate_token(false)`.
    pub(super) async fn pages<T, E>(
        &self,
        doing: &'static str,
        action: &Action,
        mut stream: PaginationStream<std::result::Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Vec<T>>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut pages = Vec::new();
        while let Some(page) = self.send(doing, action, async { stream.next().await.transpose() }).await? {
            pages.push(page);
            if pages.len() > MAX_PAGES {
                return Err(CloudError::new(ErrorKind::Protocol, doing, "a list without an end"));
            }
        }
        // What told of the end was no request.
        self.budget.give_back(action);
        Ok(pages)
    }

    /// The value of a parameter of SSM.
    pub(super) async fn parameter(&self, doing: &'static str, action: &Action, name: &str) -> Result<String> {
        self.turn(doing, action).await?;
        let credentials = self.session.credentials().await?;
        self.parameters.get(doing, credentials, name).await.map_err(|error| self.heed(action, error))
    }

    /// What the price list answers; none where there is no list.
    pub(super) async fn prices(&self, doing: &'static str, action: &Action, body: &Value) -> Result<Option<Value>> {
        let Some(list) = &self.price_list else { return Ok(None) };
        self.turn(doing, action).await?;
        let credentials = self.session.credentials().await?;
        list.ask(doing, credentials, body).await.map(Some).map_err(|error| self.heed(action, error))
    }

    /// The same once more with fresh keys, where those of a role have run out: what they were refused has not been done, and
    /// what was done before that may be done twice, as any call.
    pub(super) async fn with_fresh_keys<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let before = self.session.forgotten();
        match call().await {
            Err(error) if error.kind == ErrorKind::Auth && self.session.forgotten() != before => call().await,
            outcome => outcome,
        }
    }

    async fn turn(&self, doing: &'static str, action: &Action) -> Result<()> {
        self.budget.take(action).await.map_err(|wait| {
            let message = format!("{}: the requests that are allowed are used up", action.permission);
            CloudError::new(ErrorKind::RateLimited { retry_after: Some(wait) }, doing, message)
        })
    }

    /// What a refusal means for the calls after it.
    fn heed(&self, action: &Action, error: CloudError) -> CloudError {
        match error.kind {
            ErrorKind::RateLimited { .. } => {
                self.budget.close(action);
                CloudError { kind: ErrorKind::RateLimited { retry_after: Some(PAUSE) }, ..error }
            }
            ErrorKind::Auth => {
                self.session.forget();
                error
            }
            _ => error,
        }
    }
}

fn invalid(message: &str) -> CloudError {
    CloudError::new(ErrorKind::Invalid, "set up the client", message)
}

/// Signatures and user data go out encrypted, or not further than this host.
fn check_endpoint(url: &str) -> Result<()> {
    let parsed = reqwest::Url::parse(url).map_err(|_| invalid("the API's address is no URL"))?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        _ => Err(invalid("the API's address must begin with https://")),
    }
}
