//! How a connection ends, and what the hub's close codes mean.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    /// 1001, 1012, 1013: the hub goes away or is busy, and says when to come back.
    Drain {
        /// How long to wait.
        retry_after: Option<Duration>,
    },
    /// 4409: another connection of this machine took over.
    Superseded,
    /// 4401: the credential does not count.
    Refused(String),
    /// 4410: the machine must end.
    NotWanted(String),
    /// Anything else: a fault on the way or a protocol error (4400).
    Lost(String),
    /// The machine slept and woke up.
    Woken,
}

impl Close {
    /// What a close frame means.
    #[must_use]
    pub fn of_frame(frame: Option<&CloseFrame>) -> Self {
        let Some(frame) = frame else {
            return Self::Lost("closed without a reason".to_owned());
        };
        let reason = frame.reason.as_str();
        match u16::from(frame.code) {
            1001 | 1012 | 1013 => Self::Drain { retry_after: retry_after(reason) },
            4401 => Self::Refused(reason.to_owned()),
            4409 => Self::Superseded,
            4410 => Self::NotWanted(reason.to_owned()),
            code => Self::Lost(format!("closed with {code}: {reason}")),
        }
    }

    /// What a failed handshake or a broken stream means.
    #[must_use]
    pub fn of_error(error: &WsError) -> Self {
        let WsError::Http(answer) = error else {
            return Self::Lost(error.to_string());
        };
        match answer.status().as_u16() {
            401 | 403 => Self::Refused(format!("HTTP {}", answer.status())),
            410 => Self::NotWanted("HTTP 410".to_owned()),
            503 | 429 => Self::Drain {
                retry_after: answer
                    .headers()
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .map(bounded),
            },
            _ => Self::Lost(format!("HTTP {}", answer.status())),
        }
    }
}

/// The seconds in a reason like `draining; retry_after=2.5`.
fn retry_after(reason: &str) -> Option<Duration> {
    let (_, text) = reason.split_once("retry_after=")?;
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].parse().ok().map(bounded)
}

/// At most a minute: the hub cannot send a machine away until its lease lapses.
fn bounded(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs.clamp(0.0, 60.0)).unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::retry_after;

    #[test]
    fn a_draining_hub_says_when_to_come_back() {
        assert_eq!(retry_after("retry_after=3"), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("draining, retry_after=0.25; bye"), Some(Duration::from_millis(250)));
        assert_eq!(retry_after("retry_after=9999"), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("bye"), None);
        assert_eq!(retry_after("retry_after=soon"), None);
    }
}
