//! Requests to the providers that are spoken to in JSON and with one token: the credential, deadlines, the allowance, and
//! bounded answers. Pages and actions differ, and are each provider's own.

mod budget;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use stagely_domain::clock::Clock;
use stagely_domain::secret::Secret;

pub(crate) use crate::rest::budget::Operation;
use crate::rest::budget::{Budget, Need};
use crate::{CloudError, ErrorKind, Result};

const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// The wait when a refusal for haste says nothing.
const PAUSE: Duration = Duration::from_secs(10);

/// How often a list is read that changes meanwhile.
const READINGS: u32 = 3;

/// Whom to speak to, and how.
pub(crate) struct Config<'c> {
    /// Where the API is, with its version.
    pub(crate) api_url: &'c str,
    pub(crate) token: &'c Secret,
    /// For one request with its answer.
    pub(crate) timeout: Duration,
    /// What may be asked in any hour until the provider says otherwise.
    pub(crate) per_hour: u32,
    /// What may be asked in any minute, where that is limited too.
    pub(crate) per_minute: Option<u32>,
    /// The longest wait that a refusal for haste can ask for.
    pub(crate) max_pause: Duration,
    /// What a refusal with this status and body means.
    pub(crate) refusal: Refusal,
}

type Refusal = fn(doing: &'static str, status: u16, body: &[u8]) -> CloudError;

/// The client of one account.
#[derive(Clone)]
pub(crate) struct Rest {
    client: Client,
    base: String,
    token: Secret,
    clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    max_pause: Duration,
    refusal: Refusal,
    removes: bool,
    /// How far our clock was ahead of the provider's when it last answered.
    ahead: Arc<Mutex<Option<TimeDelta>>>,
}

/// A request beyond its path.
#[derive(Default, Clone, Copy)]
struct Ask<'a> {
    query: &'a [(&'a str, &'a str)],
    body: Option<&'a Value>,
}

impl Rest {
    pub(crate) fn new(config: &Config<'_>, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Client::builder()
            .user_agent("stagely")
            // Well before the other, so that it is known that nothing was sent.
            .connect_timeout((config.timeout / 2).min(Duration::from_secs(5)))
            .timeout(config.timeout)
            // The token must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CloudError::new(ErrorKind::Invalid, "set up the client", error.to_string()))?;
        Ok(Self {
            client,
            base: checked_base(config.api_url)?,
            token: config.token.clone(),
            clock,
            budget: Arc::new(Budget::new(config.per_hour, config.per_minute)),
            max_pause: config.max_pause,
            refusal: config.refusal,
            removes: false,
            ahead: Arc::default(),
        })
    }

    /// The same client for who removes something: what it reads for that is taken from what is kept for deletes.
    pub(crate) fn removing(&self) -> Self {
        Self { removes: true, ..self.clone() }
    }

    /// One resource, or anything that is read.
    pub(crate) async fn get(&self, doing: &'static str, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let ask = Ask { query, body: None };
        self.call(doing, Method::GET, path, ask, self.look(Need::Read)).await
    }

    /// A page of a list. What was begun waits a little for its end, which would otherwise be begun again and again.
    pub(crate) async fn get_page(
        &self,
        doing: &'static str,
        path: &str,
        query: &[(&str, &str)],
        is_first: bool,
    ) -> Result<Value> {
        if is_first {
            return self.get(doing, path, query).await;
        }
        self.budget.wait_for(self.look(Need::Page)).await.map_err(|wait| used_up(doing, wait))?;
        self.send(doing, Method::GET, path, Ask { query, body: None }).await
    }

    /// Makes or changes something.
    pub(crate) async fn post(&self, doing: &'static str, path: &str, body: &impl Serialize) -> Result<Value> {
        let body = serde_json::to_value(body)
            .map_err(|error| CloudError::new(ErrorKind::Invalid, doing, error.to_string()))?;
        let ask = Ask { query: &[], body: Some(&body) };
        self.call(doing, Method::POST, path, ask, Need::Make).await
    }

    /// Changes something.
    pub(crate) async fn put(&self, doing: &'static str, path: &str, body: &Value) -> Result<Value> {
        let ask = Ask { query: &[], body: Some(body) };
        self.call(doing, Method::PUT, path, ask, Need::Make).await
    }

    /// Tells a machine to do something that takes no words.
    pub(crate) async fn act(&self, doing: &'static str, path: &str) -> Result<Value> {
        self.call(doing, Method::POST, path, Ask::default(), Need::Make).await
    }

    /// Removes something; `None` when it was not there. Never with a query, by which some providers remove all that fits it.
    pub(crate) async fn delete(&self, doing: &'static str, path: &str) -> Result<Option<Value>> {
        match self.call(doing, Method::DELETE, path, Ask::default(), Need::Delete).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How far our clock is ahead of the provider's, by the time of its last answer.
    pub(crate) fn clock_ahead(&self) -> Option<TimeDelta> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are requests for a whole operation.
    ///
    /// # Errors
    /// `RateLimited` where there are not.
    pub(crate) fn admit(&self, doing: &'static str, operation: Operation) -> Result<()> {
        self.budget.admit(operation).map_err(|wait| used_up(doing, wait))
    }

    async fn call(&self, doing: &'static str, method: Method, path: &str, ask: Ask<'_>, need: Need) -> Result<Value> {
        self.budget.take(need).map_err(|wait| used_up(doing, wait))?;
        self.send(doing, method, path, ask).await
    }

    /// What a look is taken from.
    const fn look(&self, need: Need) -> Need {
        if self.removes { Need::Delete } else { need }
    }

    async fn send(&self, doing: &'static str, method: Method, path: &str, ask: Ask<'_>) -> Result<Value> {
        let changes = method != Method::GET;
        let mut request = self
            .client
            .request(method, format!("{}/{path}", self.base))
            .bearer_auth(self.token.reveal())
            .query(ask.query);
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        let outcome = match request.send().await {
            Ok(response) => self.answer(doing, response).await,
            Err(error) => Err(unanswered(doing, &error)),
        };
        // What failed on our side of the line, or was refused with a reason, had no effect; of the rest nobody knows.
        outcome.map_err(|error| if changes { error } else { CloudError { ambiguous: false, ..error } })
    }

    async fn answer(&self, doing: &'static str, response: Response) -> Result<Value> {
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(theirs) = date(&headers) {
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now() - theirs);
        }
        // A refusal says that nothing remains also when it is for a burst; it closes the door for a while instead.
        if status != StatusCode::TOO_MANY_REQUESTS {
            self.budget.learn(number(&headers, "ratelimit-limit"), number(&headers, "ratelimit-remaining"));
        }
        let body = read(doing, response).await;
        if status.is_success() {
            return match body?.as_slice() {
                [] if status == StatusCode::NO_CONTENT => Ok(Value::Null),
                bytes => serde_json::from_slice(bytes).map_err(|_| {
                    CloudError::new(ErrorKind::Protocol, doing, "its answer is no JSON, or only a part").ambiguous()
                }),
            };
        }
        // Whatever stands in the way may answer in HTML.
        let mut error = (self.refusal)(doing, status.as_u16(), &body.unwrap_or_default());
        if let ErrorKind::RateLimited { retry_after } = &mut error.kind {
            let wait = self.pause(&headers);
            *retry_after = Some(wait);
            self.budget.close(wait);
        }
        error.message = self.shown(&error.message);
        error.ambiguous = status.is_server_error() && error.kind != ErrorKind::Capacity;
        Err(error)
    }

    /// How long a refusal for haste asks to wait.
    fn pause(&self, headers: &HeaderMap) -> Duration {
        let after = number(headers, "retry-after");
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far from 2^53")]
        let reset = number(headers, "ratelimit-reset").map(|at| at - self.clock.now().timestamp() as f64);
        let seconds = after.or(reset).unwrap_or(PAUSE.as_secs_f64());
        Duration::from_secs_f64(seconds.clamp(1.0, self.max_pause.as_secs_f64()))
    }

    /// A message for people: short, in one line, and without the token, whoever repeats it.
    pub(crate) fn shown(&self, message: &str) -> String {
        let mut message = message.replace(char::is_control, " ");
        if !self.token.is_empty() {
            message = message.replace(self.token.reveal(), "***");
        }
        message.chars().take(300).collect()
    }
}

/// A list, read anew when it changed while it was read, and may lack what moved to a page before: `read` answers nothing
/// then.
///
/// # Errors
/// Those of `read`, and `Unavailable` when the list does not stand still.
pub(crate) async fn settled<T, F>(doing: &'static str, read: impl Fn() -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<Option<Vec<T>>>>,
{
    for _ in 0..READINGS {
        if let Some(items) = read().await? {
            return Ok(items);
        }
    }
    Err(CloudError::new(ErrorKind::Unavailable, doing, "the list changes while it is read"))
}

/// What to do about something that carries our `marks`, of which some are not what they were.
pub(crate) fn damaged(what: &str, marks: &str, wrong: &[(&str, bool)]) -> String {
    let names: Vec<&str> = wrong.iter().filter(|(_, is_wrong)| *is_wrong).map(|(name, _)| *name).collect();
    let names = names.join(", ");
    let fix = format!("put that back as it was, or remove {what} yourself");
    format!("{what} carries our {marks}, and {names} was changed or removed: {fix}")
}

/// Reads what is there in the form that it should have.
pub(crate) fn parse<T: DeserializeOwned>(doing: &'static str, value: Value) -> Result<T> {
    // The reason may quote the answer, and with it what is secret: it is not told.
    serde_json::from_value(value)
        .map_err(|_| CloudError::new(ErrorKind::Protocol, doing, "its answer lacks what must be in it"))
}

/// The base URL without a slash at its end; only loopback is spoken to without TLS.
fn checked_base(url: &str) -> Result<String> {
    let invalid = |message: &str| CloudError::new(ErrorKind::Invalid, "set up the client", message);
    let parsed = Url::parse(url).map_err(|_| invalid("the API's address is no URL"))?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match parsed.scheme() {
        "https" => Ok(url.trim_end_matches('/').to_owned()),
        "http" if loopback => Ok(url.trim_end_matches('/').to_owned()),
        _ => Err(invalid("the API's address must begin with https://")),
    }
}

fn used_up(doing: &'static str, wait: Duration) -> CloudError {
    let kind = ErrorKind::RateLimited { retry_after: Some(wait) };
    CloudError::new(kind, doing, "the account's requests are used up")
}

fn unanswered(doing: &'static str, error: &reqwest::Error) -> CloudError {
    let (kind, message) = match (error.is_timeout(), error.is_connect()) {
        (true, _) => (ErrorKind::Timeout, "no answer in time"),
        (_, true) => (ErrorKind::Unavailable, "no connection"),
        _ => (ErrorKind::Unavailable, "the connection broke"),
    };
    let failed = CloudError::new(kind, doing, message);
    if error.is_connect() || error.is_builder() { failed } else { failed.ambiguous() }
}

async fn read(doing: &'static str, mut response: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(doing, &error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(CloudError::new(ErrorKind::Protocol, doing, "its answer is too long").ambiguous());
        }
    }
    Ok(bytes)
}

/// When it was sent, by the other side's clock.
fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(headers.get("date")?.to_str().ok()?).ok().map(|date| date.to_utc())
}

fn number(headers: &HeaderMap, name: &str) -> Option<f64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// A null, or something of another form than we know, is as good as nothing.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;
    use stagely_domain::clock::SystemClock;
    use stagely_domain::secret::Secret;

    use super::{Config, Rest, checked_base};
    use crate::{CloudError, ErrorKind};

    #[tokio::test]
    async fn what_could_not_be_sent_in_time_had_no_effect() {
        // Nobody accepts: once the queue is full, whoever comes waits.
        let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        deaf.listen(0).unwrap();
        let address = deaf.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
        let waiting: Vec<TcpStream> = std::iter::from_fn(|| connect().ok()).take(100).collect();
        assert!(waiting.len() < 100, "the queue never fills");
        let config = Config {
            api_url: &format!("http://{address}"),
            token: &Secret::new("token"),
            timeout: Duration::from_millis(600),
            per_hour: 100,
            per_minute: None,
            max_pause: Duration::from_secs(1),
            refusal: |doing, _, _| CloudError::new(ErrorKind::Invalid, doing, ""),
        };
        let rest = Rest::new(&config, Arc::new(SystemClock)).unwrap();
        for outcome in [rest.post("make", "things", &json!({})).await, rest.put("change", "things/1", &json!({})).await]
        {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind, error.ambiguous), (ErrorKind::Timeout, false), "{error}");
        }
    }

    #[test]
    fn the_token_leaves_this_host_only_encrypted() {
        for good in ["https://api.example/v1/", "http://127.0.0.1:1/v1", "http://localhost:1", "http://[::1]:1"] {
            assert_eq!(checked_base(good).unwrap(), good.trim_end_matches('/'));
        }
        for bad in ["http://api.example/v1", "http://127.0.0.1.example", "ftp://127.0.0.1", "api.example", ""] {
            assert!(checked_base(bad).is_err(), "{bad}");
        }
    }
}
