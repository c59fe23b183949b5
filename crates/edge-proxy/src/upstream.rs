//! Our own HTTP/1.1 client to a machine's ingress: connections, the writer and the reader.

mod body;
mod connect;
mod head;

pub use body::{Body, Return};
pub use connect::{Connection, Key, Pool, Tls};
pub use head::{AnswerFraming, Head, read_head};

use std::pin::Pin;

/// What went wrong with a machine, for its page.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or the wrong machine at its end.
    #[error("the machine does not answer")]
    Connect(#[source] std::io::Error),
    /// The connection ended or failed before an answer.
    #[error("the service closed the connection without an answer")]
    Closed,
    /// The answer is not HTTP/1.1 as it should be.
    #[error("the service's answer is not valid HTTP: {0}")]
    Malformed(&'static str),
    /// No answer in time.
    #[error("the service did not answer in time")]
    Timeout,
}

/// The rest of a request's body on its way to the machine, polled by whoever reads the answer.
pub type Upload = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;
