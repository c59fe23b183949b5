//! Requests, and what is this provider's own in them: tags, and actions to their end.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stagely_domain::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::digitalocean::wire::Action;
use crate::digitalocean::{Config, Timing, refusal};
use crate::rest::{self, Rest, parse};
use crate::{ErrorKind, Result};

/// What a token may ask per hour until the provider says otherwise.
const PER_HOUR: u32 = 5000;
/// Every request is forgotten after an hour.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

#[derive(Clone)]
pub(super) struct Http {
    rest: Rest,
    timing: Timing,
}

/// How an action ended, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// It still goes on, or nothing is known of it: look again later.
    Going,
    /// It ended without its effect; the provider does not say why.
    Failed,
}

impl Http {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let timing = config.timing;
        let rest = rest::Config {
            api_url: &config.api_url,
            token: &config.token,
            timeout: timing.request,
            per_hour: PER_HOUR,
            per_minute: Some(config.per_minute),
            max_pause: MAX_PAUSE,
            refusal: refusal::read,
        };
        Ok(Self { rest: Rest::new(&rest, clock)?, timing })
    }

    /// The same for who removes something, whose looks are taken from what is kept for deletes.
    pub(super) fn removing(&self) -> Self {
        Self { rest: self.rest.removing(), timing: self.timing }
    }

    /// Makes a tag, so that something can be given it. One that is there stays.
    pub(super) async fn ensure_tag(&self, doing: &'static str, name: &str) -> Result<()> {
        match self.post(doing, "tags", &json!({"name": name})).await {
            // Whether it is there is seen when it is used.
            Err(error) if matches!(error.kind, ErrorKind::Invalid | ErrorKind::Conflict) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Follows an action for a while.
    ///
    /// # Errors
    /// When it cannot be asked about. That it failed is no error of the asking.
    pub(super) async fn follow(&self, doing: &'static str, action: Option<u64>, limit: Duration) -> Result<Progress> {
        // Without an action there is nothing to follow; what was done is seen by looking.
        let Some(id) = action else { return Ok(Progress::Going) };
        let (until, mut pause) = (Instant::now() + limit, self.timing.poll);
        while Instant::now() + pause <= until {
            sleep(pause).await;
            pause = (pause * 2).min(self.timing.poll * 5);
            let mut answer = match self.get(doing, &format!("actions/{id}"), &[]).await {
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(Progress::Going),
                answer => answer?,
            };
            match &*parse::<Action>(doing, answer["action"].take())?.status {
                "completed" => return Ok(Progress::Done),
                "errored" => return Ok(Progress::Failed),
                _ => {}
            }
        }
        Ok(Progress::Going)
    }

    pub(super) const fn timing(&self) -> Timing {
        self.timing
    }
}

impl Deref for Http {
    type Target = Rest;

    fn deref(&self) -> &Rest {
        &self.rest
    }
}
