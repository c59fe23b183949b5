//! Wake-ups from Postgres. They carry no data and may be missed: whoever waits for one also polls.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Store;

/// Something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// On this channel.
    Channel(String),
    /// Anywhere: the connection was lost, and notices with it.
    Missed,
}

impl Notice {
    /// Whether a reader of `channel` should look.
    #[must_use]
    pub fn concerns(&self, channel: &str) -> bool {
        match self {
            Self::Channel(name) => name == channel,
            Self::Missed => true,
        }
    }
}

impl Store {
    /// Listens until shutdown or until the receiver is dropped, on one connection beside the pool's, reopened when
    /// it is lost. The first notice, and the first after each loss, is [`Notice::Missed`]. Needs a direct connection:
    /// behind a pooler in transaction mode nothing would ever be heard, and only the polls would be left.
    pub fn listen(&self, channels: &[&str], shutdown: CancellationToken) -> mpsc::Receiver<Notice> {
        let (sender, receiver) = mpsc::channel(64);
        let channels: Vec<String> = channels.iter().map(|channel| (*channel).to_owned()).collect();
        let store = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = store.forward(&channels, &sender) => {}
                () = sender.closed() => {}
                () = shutdown.cancelled() => {}
            }
        });
        receiver
    }

    async fn forward(&self, channels: &[String], sender: &mpsc::Sender<Notice>) {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.listener(channels).await {
                Ok(mut listener) => {
                    pause = Duration::from_millis(100);
                    // Whatever was told before now was not heard here.
                    if sender.send(Notice::Missed).await.is_err() {
                        return;
                    }
                    tracing::debug!("listening for wake-ups");
                    // `try_recv` answers `None` once when the connection was lost.
                    while let Ok(Some(notice)) = listener.try_recv().await {
                        if sender.send(Notice::Channel(notice.channel().to_owned())).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot listen for wake-ups, polling meanwhile"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn listener(&self, channels: &[String]) -> Result<PgListener, sqlx::Error> {
        // A pool of its own: a busy pool must not make us deaf, and a listener must not take from the pool for ever.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(self.pool().connect_options().as_ref().clone());
        let mut listener = PgListener::connect_with(&own).await?;
        // Reopened by us, with back-off.
        listener.eager_reconnect(false);
        listener.listen_all(channels.iter().map(String::as_str)).await?;
        Ok(listener)
    }
}
